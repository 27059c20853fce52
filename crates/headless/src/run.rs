//! `run`: one answer, or a conversation.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, channel};

use crate::arguments::{Files, Run};
use crate::client::{Answer, Client};
use crate::failure::Failure;
use crate::output::Output;
use crate::server;

/// `run MODEL [PROMPT]`.
pub(crate) async fn run(options: &Run, files: &Files, output: Output) -> Result<ExitCode, Failure> {
    let prompt = prompt(options)?;
    if output.json && prompt.is_none() {
        return Err(Failure::usage("--json needs a PROMPT"));
    }
    let (server, own) = match server::running(&options.target, files).await? {
        Some(server) => (server, None),
        None => Box::pin(server::start_one(files))
            .await
            .map(|(server, app)| (server, Some(app)))?,
    };
    let mut conversation = Conversation {
        server,
        options,
        output,
        messages: Vec::new(),
    };
    if let Some(system) = &options.system {
        conversation.say("system", system);
    }
    let result = match prompt {
        Some(prompt) => conversation.once(&prompt).await,
        None => conversation.interactive().await,
    };
    if let Some(app) = own {
        app.shutdown().await;
    }
    result
}

/// The prompt of the command line, else what is piped in; `None`: a person sits there.
fn prompt(options: &Run) -> Result<Option<String>, Failure> {
    if !options.prompt.is_empty() {
        return Ok(Some(options.prompt.join(" ")));
    }
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Ok(None);
    }
    let mut text = String::new();
    stdin.read_to_string(&mut text)?;
    let text = text.trim_end();
    if text.is_empty() {
        Err(Failure::usage("the prompt is empty"))
    } else {
        Ok(Some(text.to_owned()))
    }
}

/// What is typed, line by line. A thread of its own that nobody waits for: a read of the terminal cannot be interrupted.
fn typed_lines() -> Receiver<String> {
    let (sender, receiver) = channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

struct Conversation<'a> {
    server: Client,
    options: &'a Run,
    output: Output,
    messages: Vec<Value>,
}

/// An answer as it came.
#[derive(Default)]
struct Reply {
    content: String,
    reasoning: String,
    finish_reason: Value,
    usage: Value,
}

impl Conversation<'_> {
    fn say(&mut self, role: &str, content: &str) {
        self.messages.push(json!({ "role": role, "content": content }));
    }

    async fn once(&mut self, prompt: &str) -> Result<ExitCode, Failure> {
        self.say("user", prompt);
        let mut answer = self.ask().await?;
        let reply = self.read(&mut answer).await?;
        if self.output.json {
            self.output.document(&json!({
                "model": self.options.model,
                "content": reply.content,
                "reasoning": (!reply.reasoning.is_empty()).then_some(reply.reasoning),
                "finish_reason": reply.finish_reason,
                "usage": reply.usage,
            }))?;
        } else {
            self.output.line("")?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Asks until `/bye` or the end of input. Ctrl-C ends an answer, or the conversation when none is running.
    async fn interactive(&mut self) -> Result<ExitCode, Failure> {
        let mut lines = typed_lines();
        self.output
            .line("Type a message; /bye or Ctrl-D ends, Ctrl-C stops an answer.")?;
        loop {
            self.output.bytes(b">>> ")?;
            let line = tokio::select! {
                line = lines.recv() => line,
                _ = tokio::signal::ctrl_c() => None,
            };
            let Some(line) = line else {
                self.output.line("")?;
                return Ok(ExitCode::SUCCESS);
            };
            match line.trim() {
                "" => continue,
                "/bye" => return Ok(ExitCode::SUCCESS),
                text => self.say("user", text),
            }
            let answered = tokio::select! {
                answered = self.answer() => answered,
                // Dropping the answer closes the connection: the server stops generating.
                _ = tokio::signal::ctrl_c() => Ok(None),
            };
            match answered {
                Ok(Some(content)) => self.say("assistant", &content),
                Ok(None) => {
                    self.messages.pop();
                    self.output.bytes(b" [stopped]")?;
                }
                Err(failure) => {
                    self.messages.pop();
                    failure.report();
                }
            }
            self.output.line("")?;
        }
    }

    async fn answer(&self) -> Result<Option<String>, Failure> {
        let mut answer = self.ask().await?;
        Ok(Some(self.read(&mut answer).await?.content))
    }

    async fn ask(&self) -> Result<Answer, Failure> {
        let mut body = json!({
            "model": self.options.model,
            "messages": self.messages,
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        if let Some(temperature) = self.options.temperature {
            body["temperature"] = json!(temperature);
        }
        let answer = self
            .server
            .send(Method::POST, "/v1/chat/completions", Some(&body))
            .await?;
        Ok(answer.success().await?)
    }

    /// Prints pieces as they come (unless one document is wanted).
    async fn read(&self, answer: &mut Answer) -> Result<Reply, Failure> {
        let mut reply = Reply::default();
        let terminal = std::io::stdout().is_terminal();
        while let Some(data) = answer.event().await? {
            if data == "[DONE]" {
                return Ok(reply);
            }
            let event: Value = serde_json::from_str(&data).unwrap_or_default();
            let error = &event["error"];
            if let Some(message) = error["message"].as_str().or_else(|| error.as_str()) {
                return Err(Failure::new(message));
            }
            if event["usage"].is_object() {
                reply.usage = event["usage"].clone();
            }
            let choice = &event["choices"][0];
            if !choice["finish_reason"].is_null() {
                reply.finish_reason = choice["finish_reason"].clone();
            }
            let delta = &choice["delta"];
            let reasoning = delta["reasoning_content"]
                .as_str()
                .or_else(|| delta["reasoning"].as_str());
            if let Some(text) = reasoning {
                reply.reasoning.push_str(text);
                // Thoughts are for people only: whoever pipes the answer on wants the answer.
                if terminal && !self.output.json {
                    write!(std::io::stdout(), "\x1b[2m{text}\x1b[0m")?;
                    std::io::stdout().flush()?;
                }
            }
            if let Some(text) = delta["content"].as_str() {
                if terminal && !self.output.json && reply.content.is_empty() && !reply.reasoning.is_empty() {
                    self.output.line("")?;
                }
                reply.content.push_str(text);
                if !self.output.json {
                    self.output.bytes(text.as_bytes())?;
                }
            }
        }
        Err(Failure::new(
            "the answer was cut short: the server closed the connection",
        ))
    }
}
