//! A database of the PHP server: adopting it, and the way back.

pub(super) mod adopt;
pub(super) mod revert;
pub(super) mod selectors;
