//! What a Target's registration consists of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rc_proto::wire::codes::RegistrationRole;
use rc_proto::wire::message::{Message, Register, Unregister};
use rc_proto::wire::{BrokerId, Ext, Generation, InstanceId, limits};

/// The registrations of one run of a Target; their generation counts up with each Register, over whichever link it goes.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    instance: InstanceId,
    started_ms: u64,
    generation: Arc<AtomicU64>,
}

impl Registration {
    pub(crate) fn new(instance: InstanceId, started_ms: u64) -> Self {
        Self { instance, started_ms, generation: Arc::default() }
    }

    /// The next Register, with a higher generation than every one before.
    pub(crate) fn next(
        &self,
        role: RegistrationRole,
        mut scores: Vec<(BrokerId, u32)>,
    ) -> (Generation, Message) {
        let generation = Generation(self.generation.fetch_add(1, Ordering::Relaxed) + 1);
        scores.truncate(limits::SCORES_MAX);
        let register = Register {
            instance: self.instance,
            instance_started_ms: self.started_ms,
            generation,
            role,
            scores,
            ext: Ext::none(),
        };
        (generation, register.into())
    }

    /// Ends the registration of `generation`.
    pub(crate) fn end(&self, generation: Generation) -> Message {
        Unregister { instance: self.instance, generation, ext: Ext::none() }.into()
    }
}
