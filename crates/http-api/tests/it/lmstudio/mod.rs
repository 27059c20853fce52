//! LM Studio's habits on its port.

mod answers;
mod just_in_time;
mod pages;
mod v0;
mod v1_chat;
mod v1_loads;

use serde_json::{Value, json};

use crate::harness::{Engine, Reply, Server, Setup};

fn chat(model: &str, stream: bool) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "ping"}], "temperature": 0, "stream": stream})
}

fn stub(env: &[(&'static str, &str)]) -> Engine {
    Engine::Stub(env.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
}

async fn with_stub(env: &[(&'static str, &str)]) -> Server {
    Server::start(Setup {
        engine: stub(env),
        ..Setup::default()
    })
    .await
}

fn ids(server: &Server) -> Vec<String> {
    let mut ids: Vec<String> = server.router.instances().iter().map(|i| i.model.to_string()).collect();
    ids.sort();
    ids
}

/// Name and data of every event.
fn events(reply: &Reply) -> Vec<(String, Value)> {
    let text = reply.text();
    text.split("\n\n")
        .filter(|frame| !frame.is_empty() && !frame.starts_with(':'))
        .map(|frame| {
            let (name, data) = frame.split_once('\n').expect("two lines");
            let data = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
            (name.strip_prefix("event: ").expect("a name").to_owned(), data)
        })
        .collect()
}
