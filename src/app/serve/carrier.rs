//! Carries evidence to the archive, and the ledger's checkpoint to its anchors, while the daemon lives.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{App, on_a_thread};

/// So often it is looked whether something is to be carried.
const CARRY: Duration = Duration::from_secs(60);

/// Starts, on a thread of its own: a bucket that is slow or away keeps no drill waiting. What is received when it ended is nothing.
pub(super) fn start(app: Arc<App>, cancel: CancellationToken) -> io::Result<oneshot::Receiver<()>> {
    on_a_thread("carrier".to_owned(), move || async move {
        while !cancel.is_cancelled() {
            archive(&app).await;
            anchor(&app).await;
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(CARRY) => {}
            }
        }
    })
}

async fn archive(app: &App) {
    let pushed = match app.push_archive().await {
        Ok(pushed) => pushed,
        Err(error) => return tracing::error!(%error, "evidence cannot be archived; it stays queued"),
    };
    for of in &pushed.archived {
        tracing::info!(drill = %of.drill, scenario = %of.scenario, "evidence was archived");
    }
    if let Some(error) = pushed.failure {
        tracing::error!(%error, waiting = pushed.waiting.len(), "evidence is not in the archive; it stays queued");
    }
}

async fn anchor(app: &App) {
    let anchored = match app.due_anchors(app.clock.now()) {
        Ok(due) => app.anchor(&due).await,
        Err(error) => Err(error),
    };
    let anchored = match anchored {
        Ok(anchored) => anchored,
        Err(error) => return tracing::error!(%error, "the ledger cannot be anchored"),
    };
    for anchor in &anchored.carried {
        tracing::info!(%anchor, "the ledger was anchored");
    }
    for (anchor, error) in &anchored.failed {
        tracing::error!(%anchor, %error, "the ledger could not be anchored");
    }
}
