//! The HTTP endpoint: for this machine alone, and to look only.

use tokio::sync::mpsc;

use super::Request;
use crate::net::Acceptable;

/// Serves until it is dropped. `labels` is how many identities get a label of their own in metrics.
pub(super) async fn serve(listener: Acceptable, requests: mpsc::Sender<Request>, labels: usize) {
    let _ = (listener, requests, labels);
    std::future::pending().await
}
