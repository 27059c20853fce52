//! The ready line (contract "Command line and config"): one JSON object on stdout once every listener is bound.

use std::net::SocketAddr;

use http_api::{Holder, ListenersView};
use serde::Serialize;

/// What the ready line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadyReport {
    event: &'static str,
    /// Product version.
    pub version: &'static str,
    /// This process.
    pub pid: u32,
    /// Where each listener answers.
    pub listeners: ReadyListeners,
    /// Listeners that are wanted and not there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ReadyProblem>,
}

/// Addresses by listener; `None`: disabled or not bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ReadyListeners {
    /// Ollama's port.
    pub ollama: Option<SocketAddr>,
    /// LM Studio's port.
    pub lmstudio: Option<SocketAddr>,
    /// Management port.
    pub management: Option<SocketAddr>,
}

/// Why a listener is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadyProblem {
    /// `ollama`, `lmstudio` or `management`.
    pub listener: &'static str,
    /// One sentence.
    pub error: String,
    /// Who holds the port, where the system tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_by: Option<Holder>,
}

impl ReadyReport {
    /// The report for listeners as they stand.
    pub(crate) fn new(view: &ListenersView) -> Self {
        let named = [
            ("ollama", &view.ollama),
            ("lmstudio", &view.lmstudio),
            ("management", &view.management),
        ];
        // An address without `enabled` is the window's private port, which is nobody else's business.
        let address = |at: usize| {
            named[at]
                .1
                .address
                .filter(|_| named[at].1.enabled && named[at].1.problem.is_none())
        };
        Self {
            event: "ready",
            version: crate::VERSION,
            pid: std::process::id(),
            listeners: ReadyListeners {
                ollama: address(0),
                lmstudio: address(1),
                management: address(2),
            },
            problems: named
                .into_iter()
                .filter_map(|(listener, view)| view.problem.as_ref().map(|problem| (listener, problem)))
                .map(|(listener, problem)| ReadyProblem {
                    listener,
                    error: problem.error.clone(),
                    held_by: problem.held_by.clone(),
                })
                .collect(),
        }
    }

    /// The line, without its end.
    pub fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl ReadyListeners {
    /// True when nothing answers.
    pub fn is_empty(&self) -> bool {
        self.ollama.is_none() && self.lmstudio.is_none() && self.management.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_api::{ListenerProblem, ListenerView};

    #[test]
    fn the_line_is_as_documented() {
        let on = |port| ListenerView {
            enabled: true,
            address: Some(([127, 0, 0, 1], port).into()),
            problem: None,
        };
        let mut view = ListenersView {
            ollama: on(11434),
            lmstudio: on(1234),
            management: on(5800),
            sdk_discovery: on(41343),
        };
        let start = format!(
            r#"{{"event":"ready","version":"{}","pid":{}"#,
            crate::VERSION,
            std::process::id()
        );
        assert_eq!(
            ReadyReport::new(&view).line(),
            format!(
                r#"{start},"listeners":{{"ollama":"127.0.0.1:11434","lmstudio":"127.0.0.1:1234","management":"127.0.0.1:5800"}}}}"#
            )
        );
        view.lmstudio = ListenerView::default();
        view.ollama = ListenerView {
            enabled: true,
            address: None,
            problem: Some(ListenerProblem {
                error: "Port 11434 is taken.".into(),
                held_by: Some(Holder {
                    pid: 812,
                    name: "ollama".into(),
                }),
            }),
        };
        assert_eq!(
            ReadyReport::new(&view).line(),
            format!(
                r#"{start},"listeners":{{"ollama":null,"lmstudio":null,"management":"127.0.0.1:5800"}},"problems":[{{"listener":"ollama","error":"Port 11434 is taken.","held_by":{{"pid":812,"name":"ollama"}}}}]}}"#
            )
        );
    }
}
