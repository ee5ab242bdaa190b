//! What the services have carried in the last ten minutes, so that the page's chart is full when it opens.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::daemon::{Request, ServiceTraffic};

const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
/// The chart's ten minutes, and one to begin with.
const MAX_SAMPLES: usize = 121;
/// With more services than this only their sum is kept: a quarter of a megabyte is enough for a chart.
const MAX_SERVICES: usize = 64;

/// Bytes since the start of the program: up and down.
type TrafficSums = (u64, u64);

/// The samples of one window, the oldest first.
#[derive(Debug, Default)]
pub(super) struct TrafficHistory(Mutex<VecDeque<Sample>>);

#[derive(Debug)]
struct Sample {
    time: Instant,
    all: TrafficSums,
    services: BTreeMap<&'static str, TrafficSums>,
}

/// A sample as the page gets it.
#[derive(Serialize)]
struct SampleView<'a> {
    /// Seconds since it was taken.
    age: f64,
    all: TrafficSums,
    services: &'a BTreeMap<&'static str, TrafficSums>,
}

impl<'a> SampleView<'a> {
    fn of(sample: &'a Sample) -> Self {
        let age = sample.time.elapsed().as_secs_f64();
        Self { age, all: sample.all, services: &sample.services }
    }
}

impl TrafficHistory {
    /// Takes a sample now and then, for as long as the main loop is there.
    pub(super) async fn keep(&self, requests: mpsc::Sender<Request>) {
        let mut ticks = interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (reply, answer) = oneshot::channel();
            if requests.send(Request::Traffic(reply)).await.is_err() {
                return;
            }
            // During a stop a question may stay without its answer.
            if let Ok(traffic) = answer.await {
                self.add(&traffic);
            }
        }
    }

    fn add(&self, traffic: &[ServiceTraffic]) {
        let mut all = (0, 0);
        let mut services = BTreeMap::new();
        for service in traffic {
            for sums in [&mut all, services.entry(service.name).or_insert((0, 0))] {
                *sums = (sums.0 + service.up, sums.1 + service.down);
            }
        }
        if services.len() > MAX_SERVICES {
            services.clear();
        }
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() >= MAX_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(Sample { time: Instant::now(), all, services });
    }

    /// All of it as JSON.
    pub(super) fn written(&self) -> Option<Vec<u8>> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let views: Vec<_> = samples.iter().map(SampleView::of).collect();
        serde_json::to_vec(&views).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn read(history: &TrafficHistory) -> Vec<Value> {
        serde_json::from_slice(&history.written().unwrap()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn ten_minutes_are_kept_and_no_more() {
        let (requests, mut asked) = mpsc::channel(1);
        let history = TrafficHistory::default();
        let main_loop = async {
            for up in 0..500 {
                let Some(Request::Traffic(reply)) = asked.recv().await else { return };
                let _ = reply.send(vec![ServiceTraffic { name: "tls", up, down: 2 * up }]);
            }
            asked.close();
        };
        tokio::join!(history.keep(requests), main_loop);
        let samples = read(&history);
        assert_eq!(samples.len(), MAX_SAMPLES);
        let last = &samples[MAX_SAMPLES - 1];
        assert_eq!(last["all"], serde_json::json!([499, 998]));
        assert_eq!(last["services"]["tls"], serde_json::json!([499, 998]));
        let age = |at: usize| samples[at]["age"].as_f64().unwrap();
        assert_eq!((age(0) - age(MAX_SAMPLES - 1)).round(), 600.0);
    }

    #[test]
    fn with_many_services_their_sum_is_kept_alone() {
        let name = |n: usize| -> &'static str { Box::leak(n.to_string().into_boxed_str()) };
        let traffic =
            |n: usize| (0..n).map(|n| ServiceTraffic { name: name(n), up: 1, down: 0 }).collect();
        let history = TrafficHistory::default();
        for count in [MAX_SERVICES, MAX_SERVICES + 1] {
            let traffic: Vec<_> = traffic(count);
            history.add(&traffic);
        }
        let samples = read(&history);
        let kept = |at: usize| samples[at]["services"].as_object().unwrap().len();
        assert_eq!((kept(0), kept(1)), (MAX_SERVICES, 0));
        assert_eq!(samples[1]["all"], serde_json::json!([MAX_SERVICES + 1, 0]));
    }
}
