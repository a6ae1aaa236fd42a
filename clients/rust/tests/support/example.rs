// What stands around each example: a server in this process, with a store in memory.

/// A server in this process for as long as the process lives: its address and a key with every right.
pub fn serve() -> (String, String) {
    serve_with(&[])
}

/// With these settings besides.
pub fn serve_with(settings: &[(&str, &str)]) -> (String, String) {
    use small_resource_server::app::App;
    use small_resource_server::config::Settings;
    let rights = ["RESOURCE_READ", "RESOURCE_READ_LOCK", "RESOURCE_WRITE", "RESOURCE_ADMIN"];
    let keys = rights.map(|right| (right, "example"));
    let defaults = [("STORE", "memory"), ("HTTP_HOST", "127.0.0.1"), ("HTTP_PORT", "0"), ("HTTP_WORKERS", "1")];
    let pairs = keys.iter().chain(&defaults).chain(settings);
    let pairs = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let scheme = if settings.iter().any(|(name, _)| *name == "TLS_CERT_FILE") { "https" } else { "http" };
    let settings = Settings::from_pairs(pairs, None).unwrap();
    let (port, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        actix_rt::System::new().block_on(async move {
            let app = App::build(settings).await.unwrap();
            port.send(app.address().port()).unwrap();
            app.run_until(std::future::pending()).await.unwrap();
        });
    });
    let port = told.recv().unwrap();
    (format!("{scheme}://127.0.0.1:{port}"), "example".to_owned())
}

#[allow(dead_code)]
pub fn run<E: std::fmt::Debug>(example: impl AsyncFnOnce(String, String) -> Result<(), E>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (url, key) = serve();
    runtime.block_on(example(url, key)).unwrap();
}

#[allow(dead_code)]
pub fn run_blocking<E: std::fmt::Debug>(example: impl FnOnce(String, String) -> Result<(), E>) {
    let (url, key) = serve();
    example(url, key).unwrap();
}
