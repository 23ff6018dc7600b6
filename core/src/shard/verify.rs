//! Endpoints are asked whether they want events. One shard does so for all.

use std::pin::pin;
use std::rc::Rc;

use futures::future::{Either, select};

use super::endpoints::Question;
use super::{Command, Shard};
use crate::connect;
use crate::driver::{self, Notify, Task};

/// How many are asked at a time.
const ASKED_MAX: usize = 16;

/// A question under way.
pub(super) struct Asking {
    task: Task<()>,
    /// Ends it before its time.
    stop: Rc<Notify>,
    ended: Rc<std::cell::Cell<bool>>,
}

impl Shard {
    /// Asks those that are due. Waits for none of them.
    pub(super) fn ask_endpoints(self: &Rc<Self>) {
        let endpoints = &self.shared.common.endpoints;
        if !endpoints.has_pending() || self.peers.iter().any(|p| p.index < self.shared.index) {
            return;
        }
        let mut asking = self.asking.borrow_mut();
        asking.retain(|a| !a.ended.get());
        let room = ASKED_MAX.saturating_sub(asking.len());
        let is_there = |number: u32| {
            let (lanes, replays) = (self.lanes.borrow(), self.keeping.replays.borrow());
            lanes.values().chain(replays.values()).any(|slot| slot.number == number && !slot.is_orphan())
        };
        for question in endpoints.to_ask(self.now().mono_ns, room, is_there) {
            let (stop, ended) = (Rc::new(Notify::default()), Rc::new(std::cell::Cell::new(false)));
            let (shard, stopped, done) = (self.clone(), stop.clone(), ended.clone());
            let task = driver::spawn(async move {
                shard.ask_endpoint(&question, &stopped).await;
                done.set(true);
            });
            asking.push(Asking { task, stop, ended });
        }
    }

    async fn ask_endpoint(&self, question: &Question, stop: &Notify) {
        let common = &self.shared.common;
        let answer = {
            let asked = pin!(connect::verify(&question.destination, &question.code, &self.config, &common.network));
            // Ended by a word rather than cancelled, as attempts are.
            match select(asked, pin!(stop.notified())).await {
                Either::Left((answer, _)) => Some(answer),
                Either::Right(_) => None,
            }
        };
        if common.endpoints.answered(question, answer, self.now().mono_ns, self.random()) {
            self.peers.iter().for_each(|peer| peer.command(Command::Turn(question.number)));
            self.house_wake.notify();
        }
    }

    /// Ends what is under way.
    pub(super) async fn stop_asking(&self) {
        let asking = std::mem::take(&mut *self.asking.borrow_mut());
        for a in asking {
            a.stop.notify();
            a.task.await;
        }
    }
}
