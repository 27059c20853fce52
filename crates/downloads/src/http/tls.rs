use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::DownloadError;

/// rustls with ring, trusting what the system trusts. A system without any certificates still gets a client: plain
/// addresses work, protected ones fail with a message that names the cause.
pub(super) fn client_config() -> Result<ClientConfig, DownloadError> {
    let builder = || {
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| DownloadError::Network(format!("no secure connection can be set up: {error}")))
    };
    match builder()?.with_platform_verifier() {
        Ok(verified) => Ok(verified.with_no_client_auth()),
        Err(error) => {
            tracing::warn!(%error, "this system has no root certificates, so no https address can be trusted");
            Ok(builder()?
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth())
        }
    }
}
