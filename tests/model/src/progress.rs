//! Models of the receipts.

use std::sync::Arc;

use loom::future::block_on;
use loom::thread;

use crate::error::{Error, ErrorKind};
use crate::log::Ack;
use crate::shard::Shared;
use crate::shard::progress::Receipt;

fn receipt(shard: &Arc<Shared>, position: u64) -> Receipt {
    Receipt::new(shard.clone(), position)
}

/// Who waits for an ack level is told once it is reached.
pub fn who_waits_for_an_ack_is_told() {
    let shard = Arc::new(Shared::default());
    let waiters = [(Ack::Written, 8), (Ack::Synced, 16)].map(|(ack, position)| {
        let receipt = receipt(&shard, position);
        thread::spawn(move || {
            block_on(receipt.reached(ack)).unwrap();
            assert!(receipt.is(ack));
        })
    });
    shard.progress.advance_written(16);
    shard.progress.advance_synced(8);
    shard.progress.advance_written(16);
    shard.progress.advance_synced(16);
    waiters.into_iter().for_each(|w| w.join().unwrap());
}

/// Who waits when the log fails is told so, or that his event was safe before.
pub fn who_waits_when_the_log_fails_is_told() {
    let shard = Arc::new(Shared::default());
    let waiters = [8, 16].map(|position| {
        let receipt = receipt(&shard, position);
        thread::spawn(move || {
            let result = block_on(receipt.reached(Ack::Synced));
            match result {
                Ok(()) => assert_eq!(position, 8),
                Err(e) => assert_eq!(e.kind(), ErrorKind::LogFailed),
            }
        })
    });
    shard.progress.advance_written(16);
    shard.progress.advance_synced(8);
    shard.progress.fail(Error::new(ErrorKind::LogFailed, "the disk is gone"), || ());
    waiters.into_iter().for_each(|w| w.join().unwrap());
}

/// One who gives up waiting takes nobody else's wake-up with him.
pub fn who_gives_up_disturbs_nobody() {
    let shard = Arc::new(Shared::default());
    let gives_up = {
        let receipt = receipt(&shard, 8);
        thread::spawn(move || {
            let mut future = std::pin::pin!(receipt.reached(Ack::Synced));
            block_on(std::future::poll_fn(|cx| {
                let _ = future.as_mut().poll(cx);
                std::task::Poll::Ready(())
            }));
        })
    };
    let waits = {
        let receipt = receipt(&shard, 8);
        thread::spawn(move || block_on(receipt.reached(Ack::Synced)).unwrap())
    };
    shard.progress.advance_written(8);
    shard.progress.advance_synced(8);
    gives_up.join().unwrap();
    waits.join().unwrap();
}
