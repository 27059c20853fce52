//! Clients: who shares an identifier, and the files they uploaded (LM Studio contract 10.2, 10.8).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use dialects::lmstudio_ws::UploadedFile;

/// Bytes of files one client may leave here; a new one takes the place of the oldest.
const MAX_FILES: usize = 256 << 20;

/// The clients with open sockets.
#[derive(Default)]
pub(crate) struct Clients(Mutex<HashMap<String, Weak<Client>>>);

/// One client; gone with its last socket.
pub(super) struct Client {
    passkey: String,
    /// A library of the generation that announces guests as such (Python 1.6, JavaScript 2.0); older ones know fewer
    /// messages.
    pub(super) announced: bool,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    /// Oldest first.
    list: Vec<(String, Arc<UploadedFile>)>,
    bytes: usize,
}

impl Clients {
    /// First come, first served: the first passkey of an identifier binds it while a socket of it is open. `None`: another
    /// passkey has it.
    pub(super) fn bind(&self, identifier: &str, passkey: &str) -> Option<Arc<Client>> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(identifier).and_then(Weak::upgrade) {
            return same(&client.passkey, passkey).then_some(client);
        }
        clients.retain(|_, client| client.strong_count() > 0);
        let client = Arc::new(Client {
            passkey: passkey.to_owned(),
            announced: identifier.starts_with("guest:"),
            files: Mutex::default(),
        });
        clients.insert(identifier.to_owned(), Arc::downgrade(&client));
        Some(client)
    }
}

/// In time that does not tell where they differ (promise S5).
fn same(one: &str, other: &str) -> bool {
    let differing = one.bytes().zip(other.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == other.len() && differing == 0
}

impl Client {
    /// Keeps a file; its new identifier.
    pub(super) fn keep(&self, file: UploadedFile) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let identifier = format!("file-{:x}-{number:x}", telemetry::now_ms());
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.bytes += file.bytes.len();
        files.list.push((identifier.clone(), Arc::new(file)));
        while files.bytes > MAX_FILES && files.list.len() > 1 {
            let (_, oldest) = files.list.remove(0);
            files.bytes -= oldest.bytes.len();
        }
        identifier
    }

    pub(super) fn file(&self, identifier: &str) -> Option<Arc<UploadedFile>> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let found = files.list.iter().find(|(known, _)| known == identifier);
        found.map(|(_, file)| Arc::clone(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passkey_binds_while_a_socket_is_open() {
        let clients = Clients::default();
        let first = clients.bind("a", "1").unwrap();
        assert!(clients.bind("a", "2").is_none());
        assert!(clients.bind("a", "").is_none());
        let second = clients.bind("a", "1").unwrap();
        assert!(Arc::ptr_eq(&first, &second));
        assert!(clients.bind("b", "2").is_some());
        drop((first, second));
        assert!(clients.bind("a", "2").is_some());
        assert_eq!(clients.0.lock().unwrap().len(), 1, "clients that left are forgotten");
    }

    #[test]
    fn files_are_bounded_and_belong_to_their_client() {
        let clients = Clients::default();
        let (one, other) = (clients.bind("a", "1").unwrap(), clients.bind("b", "1").unwrap());
        let file = |size: usize| UploadedFile {
            name: "f".into(),
            bytes: vec![0; size],
        };
        let (first, second) = (one.keep(file(3)), one.keep(file(3)));
        assert_ne!(first, second);
        assert!(one.file(&first).is_some() && other.file(&first).is_none());
        let large = one.keep(file(MAX_FILES));
        assert!(one.file(&first).is_none() && one.file(&second).is_none() && one.file(&large).is_some());
    }
}
