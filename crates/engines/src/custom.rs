//! Engines of the user's own that speak the OpenAI API: a command, a port, a path that says when it is ready
//! (`engines.custom.<name>`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use domain::{LoadedLaunch, ModelEntry};
use supervisor::{ExitReport, StopPlan};

use crate::failure::{by_signal, is_out_of_memory, is_port_taken};
use crate::launch::inherited_environment;
use crate::{EngineError, FailureCause, FailurePhase, Launch};

/// What the settings say about one engine (`engines.custom.<name>`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CustomSettings {
    /// `command`: program and arguments, with `{model}` and `{port}`.
    pub command: Vec<String>,
    /// `health_path`: answers 200 when the engine is ready.
    pub health_path: String,
    /// `env`: environment variables, with the same places.
    pub env: BTreeMap<String, String>,
}

/// A custom engine with a port of its own, for one start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomProgram {
    settings: CustomSettings,
    address: SocketAddr,
}

impl CustomProgram {
    /// The engine that an entry names in its facts.
    pub(crate) fn of(entry: &ModelEntry, all: &BTreeMap<String, CustomSettings>) -> Result<Self, EngineError> {
        let name = &entry.facts.architecture;
        let fault = |why: &str| EngineError::Custom {
            name: name.clone(),
            why: why.into(),
        };
        let settings = all
            .get(name)
            .ok_or_else(|| fault("is not under `engines.custom` in config.json"))?;
        if settings.command.first().is_none_or(|program| program.trim().is_empty()) {
            return Err(fault("has no `command` in config.json"));
        }
        // Free now; whoever takes it in the moment before the engine does makes the start fail, and the next one has
        // another port. The engine itself cannot be asked which one it took.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map_err(|_| fault("found no free port"))?;
        Ok(Self {
            settings: settings.clone(),
            address: port,
        })
    }

    /// Where it will answer.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The path that says it is ready, always with its slash.
    pub(crate) fn health_path(&self) -> String {
        let path = self.settings.health_path.trim();
        format!("/{}", path.trim_start_matches('/'))
    }

    /// The command. The key goes by environment (promise S4); an engine that does not ask for it may ignore it.
    pub(crate) fn launch(&self, entry: &ModelEntry, launch: &LoadedLaunch, key: &str) -> Launch {
        let model = entry.path.as_os_str();
        let fill = |text: &str| filled(text, model, self.address.port());
        let mut words = self.settings.command.iter().map(|word| fill(word));
        let program = PathBuf::from(words.next().unwrap_or_default());
        let args = words
            .chain(launch.options.extra_args.iter().map(OsString::from))
            .collect();
        let mut env: BTreeMap<OsString, OsString> = inherited_environment(Path::new(&program)).into_iter().collect();
        let own = self.settings.env.iter().map(|(name, value)| (name.into(), fill(value)));
        env.extend(own);
        let of_entry = launch.options.env.iter();
        env.extend(of_entry.map(|(name, value)| (name.into(), value.into())));
        env.insert("LR_API_KEY".into(), key.into());
        Launch {
            program,
            args,
            env: env.into_iter().collect(),
            stop: StopPlan::default(),
        }
    }

    pub(crate) fn ended(exit: &ExitReport, phase: FailurePhase) -> (FailureCause, String) {
        if exit.requested {
            return (FailureCause::Stopped, "The engine was stopped.".into());
        }
        if is_out_of_memory(&exit.last_lines) {
            let sentence = "There is not enough memory for the model. Use a smaller one, or unload other models.";
            return (FailureCause::OutOfMemory, sentence.into());
        }
        if phase == FailurePhase::Starting && is_port_taken(&exit.last_lines) {
            let sentence =
                "The engine could not open its port because another program has it. It is tried again on another one.";
            return (FailureCause::Port, sentence.into());
        }
        by_signal(exit, phase)
    }
}

/// `text` with the model's path and the port in their places. A path need not be text.
fn filled(text: &str, model: &std::ffi::OsStr, port: u16) -> OsString {
    let mut out = OsString::new();
    for (index, part) in text.split("{model}").enumerate() {
        if index > 0 {
            out.push(model);
        }
        out.push(part.replace("{port}", &port.to_string()));
    }
    out
}

#[cfg(test)]
mod tests {
    use domain::{Capability, EngineKind};

    use super::*;
    use crate::test_entry::entry;

    fn custom(settings: CustomSettings) -> (ModelEntry, BTreeMap<String, CustomSettings>) {
        let mut entry = entry(&[Capability::Chat]);
        entry.engine = EngineKind::Custom;
        entry.facts.architecture = "mine".into();
        (entry, BTreeMap::from([("mine".to_owned(), settings)]))
    }

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn places_are_filled_in_and_the_key_goes_by_environment() {
        let settings = CustomSettings {
            command: words(&["/opt/serve", "--port={port}", "{model}", "--name", "{model}:{port}"]),
            health_path: "ready".into(),
            env: BTreeMap::from([("PORT".to_owned(), "{port}".to_owned())]),
        };
        let (entry, all) = custom(settings);
        let program = CustomProgram::of(&entry, &all).unwrap();
        let port = program.address().port();
        assert_eq!(program.health_path(), "/ready");
        let launch = program.launch(&entry, &LoadedLaunch::default(), "secret");
        assert_eq!(launch.program, Path::new("/opt/serve"));
        let model = entry.path.to_str().unwrap();
        let expected = [
            format!("--port={port}"),
            model.to_owned(),
            "--name".into(),
            format!("{model}:{port}"),
        ];
        assert_eq!(launch.args, expected.map(OsString::from));
        assert!(launch.env.contains(&("PORT".into(), port.to_string().into())));
        assert!(launch.env.contains(&("LR_API_KEY".into(), "secret".into())));
        assert!(!format!("{launch:?}").contains("secret"));
    }

    #[test]
    fn an_engine_that_is_not_there_is_named() {
        let (mut entry, all) = custom(CustomSettings::default());
        let error = CustomProgram::of(&entry, &all).unwrap_err().to_string();
        assert!(error.contains("'mine'") && error.contains("command"), "{error}");
        entry.facts.architecture = "other".into();
        let error = CustomProgram::of(&entry, &all).unwrap_err().to_string();
        assert!(error.contains("'other'") && error.contains("engines.custom"), "{error}");
    }

    #[test]
    fn a_taken_port_is_tried_again() {
        let exit = ExitReport {
            code: Some(1),
            last_lines: vec!["OSError: [Errno 98] Address already in use".into()],
            ..ExitReport::default()
        };
        let (cause, _) = CustomProgram::ended(&exit, FailurePhase::Starting);
        assert!(cause == FailureCause::Port && cause.retryable());
    }
}
