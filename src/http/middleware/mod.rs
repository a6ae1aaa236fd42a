//! Around every route, from the outside in: [`observe`], [`admission`].

pub mod admission;
pub mod observe;
