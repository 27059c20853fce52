//! Tells the event bus what changed, at most four times a second: views are made once for any number of changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use domain::{EventKind, InstanceView, ModelKey};

use crate::core::Core;

const INTERVAL: Duration = Duration::from_millis(250);
/// Time without requests and news after which the memory of past requests is given back.
const REST: Duration = Duration::from_secs(3);

pub(crate) async fn run(core: Arc<Core>) {
    let mut told: HashMap<ModelKey, InstanceView> = HashMap::new();
    let mut told_active = 0;
    let mut rested = true;
    loop {
        let rest = async {
            if rested || told_active > 0 {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(REST).await;
        };
        tokio::select! {
            () = core.closed.cancelled() => {
                tell(&core, &mut told, &mut told_active);
                return;
            }
            () = core.news.notified() => rested = false,
            () = rest => {
                rested = true;
                core.background.spawn_blocking(hardware::give_back_memory);
                continue;
            }
        }
        core.has_news.store(false, Ordering::Release);
        tell(&core, &mut told, &mut told_active);
        tokio::time::sleep(INTERVAL).await;
    }
}

fn tell(core: &Core, told: &mut HashMap<ModelKey, InstanceView>, told_active: &mut u32) {
    let views = core.instance_views();
    let gone: Vec<ModelKey> = told
        .keys()
        .filter(|key| views.iter().all(|view| view.model != **key))
        .cloned()
        .collect();
    for model in gone {
        told.remove(&model);
        core.deps.bus.publish(EventKind::InstanceGone { model });
    }
    for view in views {
        if told.get(&view.model).is_some_and(|old| same(old, &view)) {
            continue;
        }
        told.insert(view.model.clone(), view.clone());
        core.deps.bus.publish(EventKind::Instance { instance: view });
    }
    let active = core.lock().requests.len() as u32;
    if active != *told_active {
        *told_active = active;
        core.deps.bus.publish(EventKind::Requests { active });
    }
}

/// Times and memory change with every look; they are no news by themselves.
fn same(old: &InstanceView, new: &InstanceView) -> bool {
    (
        old.id,
        &old.state,
        old.active,
        old.queued,
        old.keep_alive,
        old.port,
        old.jit,
    ) == (
        new.id,
        &new.state,
        new.active,
        new.queued,
        new.keep_alive,
        new.port,
        new.jit,
    )
}
