//! A lock with one document as it would be if everything happened one after the other: the object that
//! recorded histories must be linearizable to.

use small_resource_server::lock::FencingToken;
use stateright::semantics::SequentialSpec;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LockedRegister {
    value: u8,
    holder: Option<FencingToken>,
    highest: FencingToken,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Lock,
    Renew,
    Write {
        value: u8,
        release: bool,
    },
    Read,
    Unlock,
    /// Nobody asked: time or a broken connection ended a lease.
    Lapse,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ret {
    /// A lease, and whether this request made it.
    Held(FencingToken, bool),
    Wrote(Option<FencingToken>),
    Value(u8),
    /// This lease ended here.
    Ended(FencingToken),
    /// Refused, queued, nothing there to end: nothing changed.
    Nothing,
}

impl SequentialSpec for LockedRegister {
    type Op = Op;
    type Ret = Ret;

    /// For an operation of which nothing was heard: it may have happened. Of locking nothing is assumed;
    /// whatever it did shows in a later `Lapse` or answer.
    fn invoke(&mut self, op: &Op) -> Ret {
        if let Op::Write { value, .. } = op {
            self.value = *value;
        }
        Ret::Nothing
    }

    fn is_valid_step(&mut self, op: &Op, ret: &Ret) -> bool {
        match (op, ret) {
            (_, Ret::Nothing) => true,
            (Op::Lock, Ret::Held(token, true)) => {
                let valid = self.holder.is_none() && *token > self.highest;
                self.holder = Some(*token);
                self.highest = *token;
                valid
            }
            (Op::Lock | Op::Renew, Ret::Held(token, _)) => self.holder == Some(*token),
            (Op::Write { value, release }, Ret::Wrote(token)) => {
                self.write(*value, *release, *token)
            }
            (Op::Read, Ret::Value(value)) => *value == self.value,
            (Op::Unlock | Op::Lapse, Ret::Ended(token)) => self.holder.take() == Some(*token),
            _ => false,
        }
    }
}

impl LockedRegister {
    /// A ticket for which the lock is reserved takes it with its write.
    fn write(&mut self, value: u8, release: bool, token: Option<FencingToken>) -> bool {
        let takes = self.holder.is_none() && token > Some(self.highest);
        let valid = takes || self.holder == token;
        self.value = value;
        self.holder = if release { None } else { token };
        self.highest = self.highest.max(token.unwrap_or_default());
        valid
    }
}
