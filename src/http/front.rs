//! Around every route: what is to be said about the connection, and the rate limit.
//!
//! A limit must cost nobody a lock: renew and unlock with a live ticket are never limited, and a request
//! that is limited keeps its ticket alive as if it had been answered.

use std::future::{Future, Ready, ready};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_service::{Service, Transform};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::{ConnectionType, header};
use actix_web::web::Data;
use actix_web::{Error, HttpMessage, HttpRequest};
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use pin_project_lite::pin_project;

use super::auth::Right;
use super::client;
use super::connection::{Activity, UnderWay};
use super::errors::ApiError;
use super::http2::Watch;
use super::limit::{Standing, Verdict};
use super::observe;
use super::request::{X_API_KEY, name, presented};
use super::server::Worker;
use crate::lock::{Answer, PresentedTicket};
use crate::resource::messages::{Op, Reply};

/// The middleware; see the module.
pub struct Front;

impl<S> Transform<S, ServiceRequest> for Front
where
    S: Service<ServiceRequest, Response = ServiceResponse, Error = Error> + 'static,
{
    type Response = ServiceResponse;
    type Error = Error;
    type Transform = FrontService<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(FrontService(Rc::new(service))))
    }
}

pub struct FrontService<S>(Rc<S>);

impl<S> Service<ServiceRequest> for FrontService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse, Error = Error> + 'static,
{
    type Response = ServiceResponse;
    type Error = Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&self, mut request: ServiceRequest) -> Self::Future {
        let activity = request.conn_data::<Rc<Activity>>().cloned();
        let body = request.headers().get(header::CONTENT_LENGTH);
        let body = body.and_then(|length| length.to_str().ok()?.parse().ok());
        let under_way = activity
            .as_ref()
            .map(|activity| activity.begin(body.unwrap_or(0)));
        if let Some(activity) = activity {
            watch_body(&mut request, activity);
        }
        let watch = Watch::over(&mut request).map(Box::new);
        let worker = request.app_data::<Data<Worker>>().cloned();
        let limits = worker
            .as_ref()
            .is_some_and(|worker| worker.policy.load().rate.is_some());
        let answer = match &worker {
            Some(worker) if limits && is_counted(&request) => Way::Counted {
                answer: Box::pin(counted(self.0.clone(), request, worker.clone())),
            },
            _ => Way::Straight {
                answer: self.0.call(request),
            },
        };
        Answering {
            answer,
            watch,
            worker,
            under_way,
        }
    }
}

pin_project! {
    /// An answer in the making.
    pub struct Answering<F> {
        #[pin]
        answer: Way<F>,
        watch: Option<Box<Watch>>,
        worker: Option<Data<Worker>>,
        under_way: Option<UnderWay>,
    }
}

pin_project! {
    #[project = WayProjection]
    enum Way<F> {
        Straight { #[pin] answer: F },
        Counted { answer: LocalBoxFuture<'static, Result<ServiceResponse, Error>> },
    }
}

impl<F: Future<Output = Result<ServiceResponse, Error>>> Future for Answering<F> {
    type Output = Result<ServiceResponse, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let gone = this.watch.as_mut().map(|watch| watch.poll_gone(cx));
        if gone.is_some_and(|gone| gone.is_ready()) {
            // To nobody: this ends the request.
            return Poll::Ready(Err(PayloadError::Incomplete(None).into()));
        }
        let mut response = ready!(match this.answer.project() {
            WayProjection::Straight { answer } => answer.poll(cx),
            WayProjection::Counted { answer } => answer.as_mut().poll(cx),
        })?;
        *this.under_way = None;
        let worker = this.worker.as_ref();
        if worker.is_some_and(|worker| worker.router.shell.gate.is_draining()) {
            // The next request on this connection should go to another instance.
            let head = response.response_mut().head_mut();
            head.set_connection_type(ConnectionType::Close);
        }
        Poll::Ready(Ok(response))
    }
}

/// Notes when a chunked body has come to its end. One that nobody reads is drained by the dispatcher, which
/// sets itself no limit in time for that.
fn watch_body(request: &mut ServiceRequest, activity: Rc<Activity>) {
    if !request.chunked().unwrap_or(false) {
        return;
    }
    activity.set_body_open(true);
    let body = request.take_payload();
    let ends = futures_util::stream::once(async move {
        activity.set_body_open(false);
        None
    });
    let watched = body.map(Some).chain(ends).filter_map(ready);
    request.set_payload(Payload::Stream {
        payload: Box::pin(watched),
    });
}

/// Whether the rate limit is about this request: not about those of balancers and monitoring.
fn is_counted(request: &ServiceRequest) -> bool {
    let rest = request.path().strip_prefix("/resource");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers a request, or refuses it for the rate limit.
async fn counted<S>(
    service: Rc<S>,
    request: ServiceRequest,
    worker: Data<Worker>,
) -> Result<ServiceResponse, Error>
where
    S: Service<ServiceRequest, Response = ServiceResponse, Error = Error>,
{
    let (standing, wait) = match check(request.request(), &worker) {
        Verdict::Pass(standing) => (standing, None),
        Verdict::Limited {
            standing,
            retry_after,
            right,
        } => {
            let exempt = right >= Some(Right::Lock)
                && keep_alive(request.request(), &worker).await
                && is_renew_or_unlock(request.path());
            (Some(standing), (!exempt).then_some(retry_after))
        }
    };
    let mut response = match wait {
        Some(_) => request.error_response(ApiError::RateLimited),
        None => service.call(request).await?,
    };
    if let Some(standing) = standing {
        announce(&mut response, standing, wait);
    }
    Ok(response)
}

fn check(request: &HttpRequest, worker: &Worker) -> Verdict {
    let policy = worker.policy.load();
    let Some(rate) = &policy.rate else {
        return Verdict::Pass(None);
    };
    // A connection whose peer is not known any more is about to end.
    let unknown = IpAddr::from([0, 0, 0, 0]);
    let client = observe::caller(request).address.unwrap_or(unknown);
    let key = request.headers().get(&X_API_KEY);
    let key = key.map(header::HeaderValue::as_bytes);
    rate.check(&policy.keys, key, client::counted_as(client))
}

/// Presents the ticket of a request, if it has one, in its stead. Says whether it is live.
async fn keep_alive(request: &HttpRequest, worker: &Worker) -> bool {
    let presented = presented(request);
    let (PresentedTicket::Ticket(_), Ok(name)) = (presented, name(request)) else {
        return false;
    };
    let reply = worker.ask(request, &name, &Op::Touch { presented }).await;
    matches!(reply, Reply::Lock(Answer::Touched { live: true }))
}

/// `/resource/{name}/{selector}/renew` or `/unlock`.
fn is_renew_or_unlock(path: &str) -> bool {
    matches!(path.split('/').nth(4), Some("renew" | "unlock")) && path.split('/').count() == 5
}

/// The headers of the IETF's draft on rate limits, and when to come back.
fn announce(response: &mut ServiceResponse, standing: Standing, retry_after: Option<Duration>) {
    let headers = response.headers_mut();
    let mut set = |name, value: u64| {
        let name = header::HeaderName::from_static(name);
        headers.insert(name, header::HeaderValue::from(value));
    };
    set("ratelimit-limit", u64::from(standing.limit));
    set("ratelimit-remaining", u64::from(standing.remaining));
    set("ratelimit-reset", standing.reset_seconds);
    if let Some(wait) = retry_after {
        // Whole seconds, and never so few that the client comes too early.
        set("retry-after", wait.as_secs() + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::is_renew_or_unlock;

    #[test]
    fn renew_and_unlock_are_known_by_their_paths() {
        assert!(is_renew_or_unlock("/resource/a/b/renew"));
        assert!(is_renew_or_unlock("/resource/a%2Fb/c/unlock"));
        for other in [
            "/resource/a/b/lock",
            "/resource/renew/unlock",
            "/resource/a/b",
            "/resource/a/force-unlock",
            "/resource/a/b/unlock/",
            "/resource",
        ] {
            assert!(!is_renew_or_unlock(other), "{other}");
        }
    }
}
