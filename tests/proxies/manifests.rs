//! The example manifests agree with themselves and with the server that they start. Whether Kubernetes
//! understands them is for `scripts/check-manifests` to say, which has its schemas.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_yaml_ng::Value;
use small_resource_server::config::variables::{VARIABLES, find};
use small_resource_server::config::{Settings, StoreKind};

use crate::proxy::{read, root};
use crate::support::Program;

fn documents(text: &str) -> Vec<Value> {
    serde_yaml_ng::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

fn manifests() -> BTreeMap<String, Value> {
    let kind = |manifest: &Value| manifest["kind"].as_str().unwrap().to_owned();
    let all = documents(&read("kubernetes.yaml"));
    all.into_iter()
        .map(|manifest| (kind(&manifest), manifest))
        .collect()
}

fn texts(map: &Value) -> BTreeMap<String, String> {
    serde_yaml_ng::from_value(map.clone()).unwrap()
}

/// What the server makes of ConfigMap and Secret.
fn settings(manifests: &BTreeMap<String, Value>) -> Settings {
    let mut environment = texts(&manifests["ConfigMap"]["data"]);
    let path = PathBuf::from(environment.remove("CONFIG_FILE").unwrap());
    let secret = texts(&manifests["Secret"]["stringData"]);
    let text = secret[path.file_name().unwrap().to_str().unwrap()].clone();
    Settings::from_pairs(environment, Some((path, text))).unwrap()
}

fn pod(manifests: &BTreeMap<String, Value>) -> &Value {
    &manifests["Deployment"]["spec"]["template"]["spec"]
}

#[test]
fn the_server_accepts_the_settings_and_every_name_is_one_of_its() {
    let manifests = manifests();
    let settings = settings(&manifests);
    assert!(matches!(settings.store, StoreKind::Mysql(_)));
    // The keys are to be replaced, and that is all there is to say.
    let warnings = settings.origins.warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("everybody knows"));
    for name in texts(&manifests["ConfigMap"]["data"]).keys() {
        assert!(VARIABLES.iter().any(|v| v.name == name), "{name}");
        assert!(
            !VARIABLES.iter().any(|v| v.name == name && v.secret),
            "{name}"
        );
    }
    // For a Service called mysql, Kubernetes would set MYSQL_PORT to tcp://….
    assert_eq!(pod(&manifests)["enableServiceLinks"], false);
}

#[test]
fn the_pod_is_given_more_time_to_end_than_the_server_takes() {
    let manifests = manifests();
    let settings = settings(&manifests);
    let grace = pod(&manifests)["terminationGracePeriodSeconds"]
        .as_u64()
        .unwrap();
    let needed = (settings.shutdown_delay + settings.shutdown_timeout).as_secs();
    assert!(grace > needed, "{grace} s against {needed} s");
}

#[test]
fn the_service_has_noticed_before_requests_are_refused() {
    let manifests = manifests();
    let probe = &pod(&manifests)["containers"][0]["readinessProbe"];
    let number = |name: &str| probe[name].as_u64().unwrap();
    let noticed = (number("periodSeconds") + number("timeoutSeconds")) * number("failureThreshold");
    let delay = settings(&manifests).shutdown_delay.as_secs();
    assert!(noticed < delay, "{noticed} s against {delay} s");
}

#[test]
fn the_probes_ask_what_the_server_answers() {
    let manifests = manifests();
    let server = Program::new();
    let container = &pod(&manifests)["containers"][0];
    let ports = container["ports"].as_sequence().unwrap();
    let ready = &container["readinessProbe"]["httpGet"];
    let path = ready["path"].as_str().unwrap();
    assert_eq!(path, "/ready");
    assert_eq!(server.connect().ask("GET", path, &[], "").status, 200);
    // A process that was stopped still accepts connections: it has to be asked.
    let alive = &container["livenessProbe"]["httpGet"];
    assert_eq!(alive["path"], "/health");
    for asked in [ready, alive] {
        assert!(ports.iter().any(|port| port["name"] == asked["port"]));
    }
    let scrape = &manifests["Deployment"]["spec"]["template"]["metadata"]["annotations"];
    let path = scrape["prometheus.io/path"].as_str().unwrap();
    assert_eq!(server.connect().ask("GET", path, &[], "").status, 200);
}

#[test]
fn every_part_refers_to_one_that_is_there() {
    let manifests = manifests();
    let name = "small-resource-server";
    for (kind, manifest) in &manifests {
        assert_eq!(manifest["metadata"]["name"], name, "{kind}");
    }
    let deployment = &manifests["Deployment"]["spec"];
    let labels = &deployment["template"]["metadata"]["labels"];
    assert_eq!(&deployment["selector"]["matchLabels"], labels);
    assert_eq!(&manifests["Service"]["spec"]["selector"], labels);
    let budget = &manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"];
    assert_eq!(budget, labels);
    let container = &pod(&manifests)["containers"][0];
    assert_eq!(container["envFrom"][0]["configMapRef"]["name"], name);
    let volume = &pod(&manifests)["volumes"][0];
    assert_eq!(volume["secret"]["secretName"], name);
    let mount = &container["volumeMounts"][0];
    assert_eq!(mount["name"], volume["name"]);
    let file = texts(&manifests["ConfigMap"]["data"])["CONFIG_FILE"].clone();
    assert!(
        file.starts_with(mount["mountPath"].as_str().unwrap()),
        "{file}"
    );
    assert_eq!(
        manifests["Service"]["spec"]["ports"][0]["targetPort"],
        "http"
    );
}

#[test]
fn containers_run_without_rights_they_do_not_need() {
    let manifests = manifests();
    let pod = pod(&manifests);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["capabilities"]["drop"][0], "ALL");
    let services = compose();
    for name in ["one", "two", "proxy"] {
        assert_eq!(services[name]["read_only"], true);
        assert_eq!(services[name]["cap_drop"][0], "ALL");
    }
    let grace = services["one"]["stop_grace_period"].as_str().unwrap();
    let grace: u64 = grace.trim_end_matches('s').parse().unwrap();
    // The defaults of SHUTDOWN_DELAY_SECONDS and SHUTDOWN_SECONDS.
    assert!(grace > 20, "{grace}");
}

fn compose() -> Value {
    let text = std::fs::read_to_string(root().join("compose.yaml")).unwrap();
    let mut compose = documents(&text).remove(0);
    compose.apply_merge().unwrap();
    compose["services"].clone()
}

#[test]
fn compose_starts_two_instances_and_clients_reach_them_through_the_proxy_alone() {
    let services = compose();
    let address = |name: &str| {
        let address = &services[name]["networks"]["default"]["ipv4_address"];
        address.as_str().unwrap().to_owned()
    };
    let (path, text) = (PathBuf::from("compose.conf"), read("compose.conf"));
    let settings = Settings::from_pairs(BTreeMap::new(), Some((path, text))).unwrap();
    let proxy: IpAddr = address("proxy").parse().unwrap();
    let trusted = &settings.http.trusted_proxies;
    assert!(trusted.iter().any(|net| net.contains(&proxy)));
    let asked = texts(&services["proxy"]["environment"]);
    for (variable, instance) in [("INSTANCE_ONE", "one"), ("INSTANCE_TWO", "two")] {
        let port = settings.http.port;
        assert_eq!(asked[variable], format!("{}:{port}", address(instance)));
        assert!(read("haproxy.cfg").contains(&format!("\"${{{variable}")));
        let mounted = services[instance]["volumes"][0].as_str().unwrap();
        assert!(mounted.starts_with("./config/compose.conf:"), "{mounted}");
    }
    let mounted = services["proxy"]["volumes"][0].as_str().unwrap();
    assert!(mounted.starts_with("./config/haproxy.cfg:"), "{mounted}");
    for (name, service) in services.as_mapping().unwrap() {
        assert_eq!(service.get("ports").is_some(), name == "proxy", "{name:?}");
    }
}

#[test]
fn the_image_leaves_every_setting_to_a_conf_file_that_is_mounted() {
    let text = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    // The environment wins over the file.
    assert!(!text.lines().any(|line| line.starts_with("ENV ")));
    let mut folders = text
        .lines()
        .filter_map(|line| line.strip_prefix("WORKDIR "));
    let path = find("SQLITE_PATH").unwrap().default;
    let path = Path::new(folders.next_back().unwrap()).join(path);
    assert!(text.contains("VOLUME [\"/data\"]"));
    assert!(path.starts_with("/data"), "{}", path.display());
}

#[test]
fn memory_that_the_settings_allow_fits_the_limit() {
    let manifests = manifests();
    let limit = &pod(&manifests)["containers"][0]["resources"]["limits"]["memory"];
    let limit = limit.as_str().unwrap().strip_suffix("Gi").unwrap();
    let limit = limit.parse::<usize>().unwrap() << 30;
    assert!(settings(&manifests).server.data_cache_bytes * 2 < limit);
}

#[test]
fn nginx_passes_every_request_on_that_a_stand_by_refused() {
    let text = read("nginx.conf");
    let lines = text.lines().map(str::trim);
    let rules: Vec<&str> = lines
        .filter(|line| line.starts_with("proxy_next_upstream "))
        .collect();
    assert_eq!(rules.len(), text.matches("proxy_pass ").count());
    for rule in rules {
        // POST counts as not idempotent.
        assert!(rule.contains(" http_503 non_idempotent"), "{rule}");
    }
}

#[test]
fn traefik_leaves_names_in_paths_as_they_were_sent() {
    let parts = documents(&read("traefik.yaml"));
    let http = &parts[0]["entryPoints"]["web"]["http"];
    assert_eq!(http["sanitizePath"], false);
    let allowed = &http["encodedCharacters"];
    for character in [
        "Slash",
        "BackSlash",
        "Semicolon",
        "Percent",
        "QuestionMark",
        "Hash",
    ] {
        let option = format!("allowEncoded{character}");
        assert_eq!(allowed[option.as_str()], true, "{option}");
    }
}

#[test]
fn traefik_cuts_no_wait_off_and_never_uses_a_connection_that_is_closing() {
    let parts = documents(&read("traefik.yaml"));
    let [fixed, dynamic] = &parts[..] else {
        panic!("{} parts", parts.len());
    };
    let seconds = |value: &Value| -> u64 {
        let text = value.as_str().unwrap();
        text.strip_suffix('s').unwrap().parse().unwrap()
    };
    let time_outs = &fixed["entryPoints"]["web"]["transport"]["respondingTimeouts"];
    assert_eq!(seconds(&time_outs["writeTimeout"]), 0, "0 is none");
    let service = &dynamic["http"]["services"]["small-resource-server"]["loadBalancer"];
    assert_eq!(service["healthCheck"]["path"], "/ready");
    let transport = service["serversTransport"].as_str().unwrap();
    let transport = &dynamic["http"]["serversTransports"][transport]["forwardingTimeouts"];
    assert_eq!(seconds(&transport["responseHeaderTimeout"]), 0, "0 is none");
    // KEEP_ALIVE_SECONDS is 75 unless it is set.
    assert!(seconds(&transport["idleConnTimeout"]) < 75);
    let router = &dynamic["http"]["routers"]["small-resource-server"];
    assert_eq!(router["service"], "small-resource-server");
}
