//! Around every route, from the outside in: [`title_case`](crate::http::server), [`observe`], [`admission`].

pub mod admission;
pub mod observe;
