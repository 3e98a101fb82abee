//! What a Target's registration consists of.

use rc_proto::wire::codes::RegistrationRole;
use rc_proto::wire::message::{Message, Register, Unregister};
use rc_proto::wire::{BrokerId, Ext, Generation, InstanceId, limits};

/// The registration of one run of a Target; its generation counts up with each broker it registers at.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    instance: InstanceId,
    started_ms: u64,
    generation: Generation,
}

impl Registration {
    pub(crate) fn new(instance: InstanceId, started_ms: u64) -> Self {
        Self { instance, started_ms, generation: Generation(0) }
    }

    /// The next Register, with a higher generation than every one before.
    pub(crate) fn next(&mut self, scores: Vec<(BrokerId, u32)>) -> (Generation, Message) {
        self.generation = Generation(self.generation.0.saturating_add(1));
        let mut scores = scores;
        scores.truncate(limits::SCORES_MAX);
        let register = Register {
            instance: self.instance,
            instance_started_ms: self.started_ms,
            generation: self.generation,
            role: RegistrationRole::PRIMARY,
            scores,
            ext: Ext::none(),
        };
        (self.generation, register.into())
    }

    /// Ends the registration of `generation`.
    pub(crate) fn end(&self, generation: Generation) -> Message {
        Unregister { instance: self.instance, generation, ext: Ext::none() }.into()
    }
}
