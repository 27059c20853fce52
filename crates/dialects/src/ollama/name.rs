use domain::{RegistryName, RunnerError};

/// The name ready for the registry: without white space around it and without the source suffix `:local`.
///
/// # Errors
/// `InvalidRequest` for `:local` together with `:cloud`.
pub fn lookup_name(name: &str) -> Result<String, RunnerError> {
    let trimmed = name.trim();
    let local = trimmed.strip_suffix(":local");
    let both = match local {
        Some(base) => base.ends_with(":cloud") || (base.contains(':') && base.ends_with("-cloud")),
        None => trimmed
            .strip_suffix(":cloud")
            .is_some_and(|base| base.ends_with(":local")),
    };
    if both {
        return Err(RunnerError::invalid(format!(
            "use either :local or :cloud, not both: {trimmed:?}"
        )));
    }
    Ok(local.unwrap_or(trimmed).to_owned())
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
        for both in ["x:cloud:local", "x:7b-cloud:local", "x:local:cloud"] {
            assert_eq!(
                lookup_name(both).unwrap_err().message,
                format!("use either :local or :cloud, not both: \"{both}\"")
            );
        }
    }
}
