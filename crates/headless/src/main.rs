//! `llama-runner`: the headless server and the command line (contract "Command line and config").
//!
//! Must not know: windows and trays; how anything is done. `serve` runs `app`; every other verb asks a running server
//! through its HTTP interface, or `app` for what needs no server.

mod arguments;
mod client;
mod config_file;
mod doctor;
mod engine;
mod failure;
mod inventory;
mod lifecycle;
mod live;
mod logs;
mod output;
mod passages;
mod pull;
mod recording;
mod run;
mod serve;
mod server;
mod speak;
mod stored;
mod transcribe;
mod voices;
mod waiting;
mod wav;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use crate::arguments::{Arguments, Verb};
use crate::failure::Failure;
use crate::output::Output;

/// What still blocks when everything is over (a read of the terminal) must not keep the program.
const LINGER: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(arguments.json);
    let runtime = match app::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(error).report(),
    };
    let result = runtime.block_on(perform(arguments, output));
    runtime.shutdown_timeout(LINGER);
    match result {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

async fn perform(arguments: Arguments, output: Output) -> Result<ExitCode, Failure> {
    let files = arguments.files;
    match arguments.verb {
        Verb::Serve(options) => Box::pin(serve::serve(options.on(files.options()))).await,
        Verb::List(target) => inventory::list(&server::connect(&target, &files).await?, output).await,
        Verb::Ps(target) => inventory::ps(&server::connect(&target, &files).await?, output).await,
        Verb::Show(on) => inventory::show(&server::connect(&on.target, &files).await?, &on.model, output).await,
        Verb::Run(options) => Box::pin(run::run(&options, &files, output)).await,
        Verb::Transcribe(options) => Box::pin(transcribe::transcribe(&options, &files, output)).await,
        Verb::Speak(options) => Box::pin(speak::speak(&options, &files, output)).await,
        Verb::Pull(options) => pull::pull(&server::connect(&options.target, &files).await?, &options, output).await,
        Verb::Rm(options) => {
            stored::rm(
                &server::connect(&options.target, &files).await?,
                &options.models,
                output,
            )
            .await
        }
        Verb::Cp(options) => {
            let server = server::connect(&options.target, &files).await?;
            stored::cp(&server, &options.source, &options.destination, output).await
        }
        Verb::Start(on) => lifecycle::start(&server::connect(&on.target, &files).await?, &on.model, output).await,
        Verb::Stop(options) => {
            let server = server::connect(&options.on.target, &files).await?;
            lifecycle::stop(&server, &options.on.model, options.force, output).await
        }
        Verb::Logs(options) => logs::logs(&options, &files, output).await,
        Verb::Config { action } => config_file::config(action, &files, output),
        Verb::Engine { action } => engine::engine(action, &files, output).await,
        Verb::Doctor => doctor::doctor(&files, output).await,
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "llama-runner", &mut script);
            output.bytes(&script)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Routes => inventory::routes(output),
    }
}
