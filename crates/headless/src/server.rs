//! Finding the server a verb talks to.

use std::path::Path;
use std::process::ExitCode;

use app::{AppHandle, StartOptions};

use crate::arguments::{Files, Target};
use crate::client::Client;
use crate::failure::Failure;

const MANAGEMENT_PORT: u16 = 5800;

/// The running server.
///
/// # Errors
/// There is none; the message says how to start one.
pub(crate) async fn connect(target: &Target, files: &Files) -> Result<Client, Failure> {
    let client = address(target, files)?;
    if answers(&client).await {
        Ok(client)
    } else {
        Err(nobody(&client))
    }
}

/// The running server of this user, if there is one.
pub(crate) async fn running(target: &Target, files: &Files) -> Result<Option<Client>, Failure> {
    let named = target.host.is_some() || target.management_url.is_some();
    let client = address(target, files)?;
    match answers(&client).await {
        true => Ok(Some(client)),
        false if named => Err(nobody(&client)),
        false => Ok(None),
    }
}

/// A server for the occasion, in this process, on free ports.
pub(crate) async fn start_one(files: &Files) -> Result<(Client, AppHandle), Failure> {
    let options = StartOptions {
        ollama_port: Some(0),
        lmstudio_port: Some(0),
        management_port: Some(0),
        log_level: Some("error".to_owned()),
        ..files.options()
    };
    let app = app::start(options).await?;
    let listeners = app.ready().listeners;
    // All routes are on all listeners.
    let address = listeners.management.or(listeners.ollama).or(listeners.lmstudio);
    let address = address.ok_or_else(|| Failure::new("no port could be opened"))?;
    Ok((Client::new(address.to_string()), app))
}

/// Does one piece of work with the running server, else with one for the occasion. Ctrl-C breaks the work off: its
/// connection closes, and the server stops what it does for it.
pub(crate) async fn occasion<W>(
    target: &Target,
    files: &Files,
    work: impl FnOnce(Client) -> W,
) -> Result<ExitCode, Failure>
where
    W: Future<Output = Result<ExitCode, Failure>>,
{
    let (server, own) = match running(target, files).await? {
        Some(server) => (server, None),
        None => Box::pin(start_one(files))
            .await
            .map(|(server, app)| (server, Some(app)))?,
    };
    let result = tokio::select! {
        result = work(server) => result,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted("stopped")),
    };
    if let Some(app) = own {
        app.shutdown().await;
    }
    result
}

/// Does a LlamaRunner answer there? Another program on the port must not be taken for one.
async fn answers(client: &Client) -> bool {
    client
        .get("/health")
        .await
        .is_ok_and(|health| health["status"].is_string() && health["version"].is_string())
}

fn nobody(client: &Client) -> Failure {
    Failure::new(format!(
        "no LlamaRunner answers at {}. Start one with: llama-runner serve",
        client.url()
    ))
}

/// Where the server is: as named, else as the owner of the data folder says, else as the settings say.
fn address(target: &Target, files: &Files) -> Result<Client, Failure> {
    if let Some(url) = &target.management_url {
        return Client::from_url(url).map_err(|error| Failure::usage(error.to_string()));
    }
    if let Some(host) = &target.host {
        return Ok(Client::new(with_port(host)));
    }
    let options = files.options();
    let places = options.places()?;
    if let Some(address) = owner(&places.data) {
        return Ok(Client::new(address));
    }
    // A server with another data folder, or one whose owner file we may not read.
    let port = options.read_config().map_or(MANAGEMENT_PORT, |(_, parsed)| {
        match parsed.config.proxies.management.port {
            0 => MANAGEMENT_PORT,
            port => port,
        }
    });
    Ok(Client::new(format!("127.0.0.1:{port}")))
}

fn owner(data: &Path) -> Option<String> {
    app::running_instance(data)?
        .management
        .map(|address| address.to_string())
}

fn with_port(host: &str) -> String {
    let bare_six = host.matches(':').count() > 1 && !host.starts_with('[');
    let has_port = !bare_six
        && host
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match (has_port, bare_six) {
        (true, _) => host.to_owned(),
        (false, true) => format!("[{host}]:{MANAGEMENT_PORT}"),
        (false, false) => format!("{host}:{MANAGEMENT_PORT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_get_the_management_port() {
        for (host, authority) in [
            ("box", "box:5800"),
            ("box:1", "box:1"),
            ("::1", "[::1]:5800"),
            ("[::1]", "[::1]:5800"),
            ("[::1]:2", "[::1]:2"),
            ("10.0.0.1", "10.0.0.1:5800"),
        ] {
            assert_eq!(with_port(host), authority, "{host}");
        }
    }
}
