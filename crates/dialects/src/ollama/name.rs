use domain::{RegistryName, RunnerError};

/// The name ready for the registry: without white space around it and without the source suffix `:local`.
///
/// # Errors
/// `InvalidRequest` for `:local` together with `:cloud`.
pub fn lookup_name(name: &str) -> Result<String, RunnerError> {
    let trimmed = name.trim();
    let Some(base) = trimmed.strip_suffix(":local") else {
        return Ok(trimmed.to_owned());
    };
    if base.ends_with(":cloud") || (base.contains(':') && base.ends_with("-cloud")) {
        return Err(RunnerError::invalid(format!(
            "use either :local or :cloud, not both: {trimmed:?}"
        )));
    }
    Ok(base.to_owned())
}

/// The full name of a name as asked, for capability errors; the name itself when it breaks the grammar.
pub(super) fn full_name(asked: &str) -> String {
    RegistryName::parse(asked).map_or_else(|| asked.to_owned(), |name| name.full())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_suffixes() {
        assert_eq!(lookup_name(" x:local ").unwrap(), "x");
        assert_eq!(lookup_name("x:cloud").unwrap(), "x:cloud");
        assert_eq!(
            lookup_name("x:cloud:local").unwrap_err().message,
            "use either :local or :cloud, not both: \"x:cloud:local\""
        );
    }
}
