//! One request to the server and its answer: retries, the servers in turn, and that the answer is ours.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::clock::BootTime;
use crate::error::{Error, LossReason, Lost};
use crate::holder::Forced;

/// What one lock request waits on the server at most; a longer wait is made of several.
const WAIT_SLICE: Duration = Duration::from_secs(20);
/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A retry waits for a random part of this, which doubles with each one, up to the second.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const X_TICKET: HeaderName = HeaderName::from_static("x-ticket");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The servers, and how they are asked.
pub(crate) struct Transport {
    /// Without the slash at the end.
    servers: Vec<String>,
    /// The one that answered last.
    current: AtomicUsize,
    key: Option<HeaderValue>,
    tls: rustls::ClientConfig,
    http: Mutex<reqwest::Client>,
    /// How long an answer may take besides what was asked to be waited.
    pub(crate) timeout: Duration,
    /// In milliseconds; smaller once a server has said that it lets nobody wait that long.
    wait_slice: AtomicU64,
}

/// A request that can be sent several times.
pub(crate) struct Request {
    pub(crate) method: Method,
    /// From the root, with its query.
    pub(crate) path: String,
    pub(crate) ticket: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    /// The tag that is known: without a change the answer is 304.
    pub(crate) if_none_match: Option<HeaderValue>,
    pub(crate) body: Option<String>,
    /// How long one answer may take.
    pub(crate) answer_within: Duration,
    /// No retry begins after this moment.
    pub(crate) until: Option<BootTime>,
    /// How long after `until` an answer is still waited for.
    pub(crate) grace: Duration,
    /// May it be sent again when it is not known whether it arrived?
    pub(crate) repeatable: bool,
    /// Set once it may have reached a server: then it may have left something there.
    pub(crate) open: Arc<AtomicBool>,
}

/// What the server answered, whatever its status.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// When the request was sent that this answers.
    pub(crate) sent: BootTime,
    /// Was it sent for the second time, or later?
    pub(crate) repeated: bool,
}

/// No answer that counts.
struct Broken {
    message: String,
    /// Did it certainly not reach a server?
    unsent: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    error: String,
    code: String,
    forced: Option<Forced>,
}

impl Transport {
    pub(crate) fn new(
        servers: Vec<String>,
        key: Option<HeaderValue>,
        tls: rustls::ClientConfig,
        timeout: Duration,
    ) -> Result<Transport, Error> {
        Ok(Transport {
            servers,
            current: AtomicUsize::new(0),
            key,
            http: Mutex::new(http_client(&tls)?),
            tls,
            timeout,
            wait_slice: AtomicU64::new(WAIT_SLICE.as_millis() as u64),
        })
    }

    pub(crate) fn request(&self, method: Method, path: String) -> Request {
        Request {
            method,
            path,
            ticket: None,
            idempotency_key: None,
            if_none_match: None,
            body: None,
            answer_within: self.timeout,
            until: Some(BootTime::now() + self.timeout),
            grace: self.timeout,
            repeatable: true,
            open: Arc::default(),
        }
    }

    /// How long a request may wait on the server.
    pub(crate) fn wait_slice(&self) -> Duration {
        Duration::from_millis(self.wait_slice.load(Ordering::Relaxed))
    }

    /// Takes note of a server that refused `asked` and said what it accepts. False: it said nothing of the kind.
    pub(crate) fn learn_wait(&self, asked: Duration, refusal: &Answer) -> bool {
        let sentence = refusal.error_body().error;
        let words = sentence.split(|c: char| !c.is_ascii_digit());
        let most = words
            .filter_map(|word| word.parse::<u64>().ok())
            .next_back();
        let known = most.map(|seconds| seconds.saturating_mul(1000));
        let smaller = known.filter(|most| u128::from(*most) < asked.as_millis());
        let found = refusal.status == StatusCode::BAD_REQUEST && sentence.contains("wait");
        if let (true, Some(most)) = (found, smaller) {
            self.wait_slice.store(most, Ordering::Relaxed);
            return true;
        }
        false
    }

    /// The answer of the first server that gives one, after as many retries as the time allows.
    pub(crate) async fn send(&self, request: &Request) -> Result<Answer, Error> {
        let mut tries: u32 = 0;
        loop {
            let server = self.current.load(Ordering::Relaxed);
            let outcome = self.send_once(request, server).await;
            tries += 1;
            let (error, pause) = match outcome {
                Ok(mut answer) if !is_temporary(answer.status) => {
                    answer.repeated = tries > 1;
                    return Ok(answer);
                }
                Ok(answer) => (answer.refusal(), answer.retry_after()),
                Err(broken) if request.repeatable || broken.unsent => {
                    (no_answer(&self.servers[server], &broken), Duration::ZERO)
                }
                Err(broken) => return Err(no_answer(&self.servers[server], &broken)),
            };
            let unlimited = matches!(&error, Error::Refused { status: 429, .. });
            if !unlimited {
                self.turn_from(server);
            }
            // Another server is tried at once; after a round of them it is time to wait.
            let round = self.servers.len() as u32;
            let rest = tries.is_multiple_of(round) || unlimited;
            let pause = if rest {
                pause + backoff(tries / round)
            } else {
                Duration::ZERO
            };
            let over = request
                .until
                .is_some_and(|until| until.remaining() <= pause);
            // A server that never answers may take all the time: the others of this round are asked all the same.
            if over && (rest || request.grace.is_zero()) {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Opens a stream of events at the first server that lets it, asking each server once.
    ///
    /// # Errors
    /// Why the last server did not; and, unless waiting cannot help, how long to wait at least.
    pub(crate) async fn open(
        &self,
        path: &str,
    ) -> Result<reqwest::Response, (Error, Option<Duration>)> {
        let mut request = self.request(Method::GET, path.to_owned());
        // These bound the whole answer, and a stream goes on.
        (request.answer_within, request.until) = (Duration::MAX, None);
        let mut tries = 0;
        loop {
            let server = self.current.load(Ordering::Relaxed);
            let refused = match self.open_at(&request, server).await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(answer))
                    if is_temporary(answer.status) || answer.status.is_server_error() =>
                {
                    (answer.refusal(), Some(answer.retry_after()))
                }
                Ok(Err(answer)) => return Err((answer.refusal(), None)),
                Err(broken) => {
                    let error = no_answer(&self.servers[server], &broken);
                    (error, Some(Duration::ZERO))
                }
            };
            self.turn_from(server);
            tries += 1;
            if tries >= self.servers.len() {
                return Err(refused);
            }
        }
    }

    /// The stream, or the answer that refuses it.
    async fn open_at(
        &self,
        request: &Request,
        server: usize,
    ) -> Result<Result<reqwest::Response, Answer>, Broken> {
        let opened = async {
            let sent = BootTime::now();
            let response = self.begin(request, server).await?;
            match response.status().is_success() {
                true => Ok(Ok(response)),
                false => whole(response, sent).await.map(Err),
            }
        };
        let late = |_| Broken {
            message: "it took too long".into(),
            unsent: false,
        };
        let opened = tokio::time::timeout(self.timeout, opened).await;
        opened.map_err(late)?
    }

    async fn send_once(&self, request: &Request, server: usize) -> Result<Answer, Broken> {
        // Before anything is done for it: what comes later would be counted in our favour.
        let sent = BootTime::now();
        let was_open = request.open.swap(true, Ordering::Relaxed);
        let begun = self.begin(request, server).await;
        if begun.as_ref().is_err_and(|broken| broken.unsent) {
            request.open.store(was_open, Ordering::Relaxed);
        }
        whole(begun?, sent).await
    }

    /// Sends it, and looks at the head of the answer.
    async fn begin(&self, request: &Request, server: usize) -> Result<reqwest::Response, Broken> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let id = HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("0"));
        let url = format!("{}{}", self.servers[server], request.path);
        let http = self
            .http
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut outgoing = http.request(request.method.clone(), url);
        outgoing = outgoing.header(X_REQUEST_ID, id.clone());
        if let Some(key) = &self.key {
            outgoing = outgoing.header(X_API_KEY, key.clone());
        }
        for (name, value) in [
            (X_TICKET, &request.ticket),
            (IDEMPOTENCY_KEY, &request.idempotency_key),
        ] {
            if let Some(mut value) = value.as_ref().and_then(|v| HeaderValue::from_str(v).ok()) {
                value.set_sensitive(true);
                outgoing = outgoing.header(name, value);
            }
        }
        if let Some(tag) = &request.if_none_match {
            outgoing = outgoing.header(reqwest::header::IF_NONE_MATCH, tag.clone());
        }
        if let Some(body) = &request.body {
            outgoing = outgoing.header(reqwest::header::CONTENT_TYPE, "application/json");
            outgoing = outgoing.body(body.clone());
        }
        let left = request
            .until
            .map_or(Duration::MAX, |until| until.remaining());
        let within = request
            .answer_within
            .min(left.saturating_add(request.grace));
        if within < Duration::MAX {
            outgoing = outgoing.timeout(within);
        }
        let response = outgoing.send().await.map_err(broken)?;
        match response.headers().get(X_REQUEST_ID) {
            Some(echo) if *echo == id => Ok(response),
            // What stands between us and the server, and the parser of HTTP itself, answer without one.
            None if !response.status().is_success() => Ok(response),
            _ => {
                // What follows on that connection belongs to others, too.
                if let Ok(fresh) = http_client(&self.tls) {
                    *self.http.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
                }
                Err(Broken {
                    message: "the answer belongs to another request".into(),
                    unsent: false,
                })
            }
        }
    }

    /// The next request begins with the server after this one.
    fn turn_from(&self, server: usize) {
        let next = (server + 1) % self.servers.len();
        let _ = self
            .current
            .compare_exchange(server, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Answer {
    /// Refuses an answer that is no success.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.status.is_success() {
            true => Ok(()),
            false => Err(self.refusal()),
        }
    }

    /// Refuses an answer that says that the presented ticket is not alive any more.
    pub(crate) fn check_ticket(&self, name: &str) -> Result<(), Lost> {
        match self.loss() {
            Some(reason) => Err(Lost {
                name: name.to_owned(),
                reason,
            }),
            None => Ok(()),
        }
    }

    /// The body of a success; else the refusal.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        self.check()?;
        serde_json::from_slice(&self.body)
            .map_err(|error| Error::not_understood("the server's answer", error))
    }

    fn error_body(&self) -> ErrorBody {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) fn code(&self) -> String {
        self.error_body().code
    }

    pub(crate) fn refusal(&self) -> Error {
        let body = self.error_body();
        let message = match body.error {
            empty if empty.is_empty() => "the server refused".to_owned(),
            sentence => sentence,
        };
        Error::Refused {
            status: self.status.as_u16(),
            code: body.code,
            message,
        }
    }

    /// Does it say that the presented ticket is not alive any more, and why?
    pub(crate) fn loss(&self) -> Option<LossReason> {
        let body = self.error_body();
        match (self.status.as_u16(), body.code.as_str()) {
            (403, "lease_expired") => Some(LossReason::Expired),
            (403, "ticket_released") => Some(LossReason::Released),
            (403, "lease_forced_off") => {
                let forced = body.forced.map(|forced| (forced.reason, forced.by));
                let (reason, by) = forced.unwrap_or_default();
                Some(LossReason::ForcedOff { reason, by })
            }
            (403, "ticket_unknown") => Some(LossReason::Unknown),
            (404, "resource_unknown") => Some(LossReason::Deleted),
            (409, "not_holder") => Some(LossReason::Unknown),
            _ => None,
        }
    }

    fn retry_after(&self) -> Duration {
        let header = self.headers.get(reqwest::header::RETRY_AFTER);
        let seconds = header.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Duration::from_secs(seconds.unwrap_or(0))
    }
}

/// Worth a retry: the server, or what stands before it, says that it cannot now.
fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// A random part of a time that doubles with each round: many that were refused together come back apart.
pub(crate) fn backoff(round: u32) -> Duration {
    let most = BACKOFF.saturating_mul(1 << round.min(10)).min(BACKOFF_MAX);
    most.mul_f64(fastrand::f64())
}

async fn whole(response: reqwest::Response, sent: BootTime) -> Result<Answer, Broken> {
    Ok(Answer {
        status: response.status(),
        headers: response.headers().clone(),
        body: response.bytes().await.map_err(broken)?.into(),
        sent,
        repeated: false,
    })
}

/// What reqwest says, with what is behind it, and without the address, whose path is nobody's business.
fn broken(error: reqwest::Error) -> Broken {
    let unsent = error.is_connect() || error.is_builder();
    let error = error.without_url();
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        message += &format!(": {inner}");
        cause = inner.source();
    }
    Broken { message, unsent }
}

/// The error of a stream from this server that broke.
pub(crate) fn unreachable_read(server: &str, error: reqwest::Error) -> Error {
    no_answer(server, &broken(error))
}

fn no_answer(server: &str, broken: &Broken) -> Error {
    Error::Unreachable(format!("{server}: {}", broken.message))
}

fn http_client(tls: &rustls::ClientConfig) -> Result<reqwest::Client, Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .http1_only()
        // A lock server is asked directly, its key is shown to nobody else, and what is repeated is our decision.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_MAX)
        .user_agent(concat!("small-resource-client/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| Error::Invalid(format!("the HTTP client cannot be made: {error}")))
}
