//! The Helm chart in `deploy/helm`, rendered by Helm's own library: that what comes out is what Kubernetes, KEDA and the Prometheus operator
//! take, that values reach it as they were said, and that values which cannot work are refused. Nothing is installed in a cluster.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use dossier_tests::host::{Site, root};
use dossier_tests::not_run::not_run;
use dossier_tests::python;
use dossier_tests::redis_server::RedisServer;
use serde_json::{Value, json};

/// Helm, the schemas of Kubernetes, and the types made from the definitions of KEDA and the Prometheus operator.
const PACKAGES: [&str; 4] = [
    "helm-python-sdk==0.2.2",
    "kubernetes-validate==1.37.0",
    "cloudcoil-models-keda==2.16.1.0",
    "cloudcoil-models-prometheus-operator==0.80.1.0",
];

/// Whatever the chart can do.
const EVERYTHING: &str = r#"
config: "[[step]]\nplugin = \"verdict\"\n"
image: { digest: "sha256:0123" }
imagePullSecrets: [{ name: registry }]
replicas: 1000000
tables:
  assets.csv: "ip,hostname\n10.0.0.5,dc01\n"
  "odd name.txt": "x: y\n"
secret:
  values: { REDIS_URL: "redis://:p\"w@redis/0", DOSSIER_ADMIN_TOKEN: 0123456789abcdef0 }
plugins: { existingClaim: plugins }
autoscaling: { enabled: true, authSecret: redis, streamLength: 1000000, maxReplicas: 1000000, tls: true }
podDisruptionBudget: { maxUnavailable: 50% }
service: { annotations: { a: b } }
serviceMonitor: { enabled: true, labels: { release: prometheus } }
serviceAccount: { annotations: { a: b } }
podAnnotations: { a: b }
podLabels: { a: b }
nodeSelector: { a: b }
tolerations: [{ key: a, operator: Exists }]
affinity: { nodeAffinity: {} }
topologySpreadConstraints: [{ maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway }]
extraEnv: [{ name: A, value: b }]
extraVolumes: [{ name: more, emptyDir: {} }]
extraVolumeMounts: [{ name: more, mountPath: /more }]
"#;

/// The least that must be said.
const LEAST: &str = r#"
config: "[[step]]\nplugin = \"verdict\"\n"
secret: { values: { DOSSIER_ADMIN_TOKEN: 0123456789abcdef0 } }
"#;

/// What a chart comes to with some values.
struct Rendered(Value);

impl Rendered {
    /// The object of a kind whose name ends so.
    fn object(&self, kind: &str, end: &str) -> &Value {
        let objects = self.0["objects"].as_array().unwrap_or_else(|| panic!("it is refused: {}", self.0["refused"]));
        let named = |object: &&Value| {
            object["kind"] == kind && object["metadata"]["name"].as_str().is_some_and(|name| name.ends_with(end))
        };
        objects.iter().find(named).unwrap_or_else(|| panic!("there is no {kind} {end}"))
    }

    fn kinds(&self) -> Vec<&str> {
        self.0["objects"].as_array().into_iter().flatten().filter_map(|object| object["kind"].as_str()).collect()
    }

    fn without_problems(self) -> Self {
        assert_eq!(self.0["refused"], Value::Null);
        assert_eq!(self.0["problems"], json!([]));
        self
    }
}

/// Renders a chart; none, which is noted, where that cannot be done.
fn render_folder(test: &str, chart: &Path, values: &str) -> Option<Rendered> {
    let programs = match python::environment("chart", &PACKAGES) {
        Ok(programs) => programs,
        Err(why) => {
            not_run(test, &format!("{why:#}"));
            return None;
        }
    };
    let mut command = Command::new(programs.join("python"));
    command.arg(root().join("tests/src/chart.py")).arg(chart);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
    child.stdin.take().expect("a pipe").write_all(values.as_bytes()).expect("it reads the values");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "chart.py failed; what is wrong stands above");
    Some(Rendered(serde_json::from_slice(&output.stdout).expect("it prints JSON")))
}

fn render(test: &str, values: &str) -> Option<Rendered> {
    render_folder(test, &root().join("deploy/helm/dossier"), values)
}

/// `mine.yaml` as `docs/operations/deploy.md` has it.
fn of_the_page() -> String {
    let page = std::fs::read_to_string(root().join("docs/operations/deploy.md")).expect("the page");
    let (_, rest) = page.split_once("`mine.yaml`:\n```yaml\n").expect("the page has a mine.yaml");
    rest.split_once("```").expect("the block ends").0.to_owned()
}

#[test]
fn the_chart_with_the_values_of_the_page_enriches_with_a_configuration_in_order() {
    let test = "the_chart_with_the_values_of_the_page_enriches_with_a_configuration_in_order";
    let values = of_the_page();
    let Some(rendered) = render(test, &values) else { return };
    let rendered = rendered.without_problems();
    // Its secret is there already.
    assert!(!rendered.kinds().contains(&"Secret"), "{:?}", rendered.kinds());
    let container = &rendered.object("Deployment", "dossier")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["envFrom"][0]["secretRef"]["name"], "dossier");
    assert_eq!(container["image"], "registry.example.org/soc/dossier:0.1.0");

    let server = RedisServer::start().expect("redis starts");
    let site = Site::new("");
    let folder = site.path("").display().to_string();
    let config = rendered.object("ConfigMap", "dossier")["data"]["dossier.toml"].as_str().expect("a configuration");
    let config = config.replace("/var/lib/dossier/", &folder);
    site.write("dossier.toml", config.as_bytes());
    std::fs::create_dir_all(site.path("tables")).expect("a folder of tables");
    for (name, text) in rendered.object("ConfigMap", "tables")["data"].as_object().expect("tables") {
        site.write(&format!("tables/{name}"), text.as_str().expect("a text").as_bytes());
    }
    for plugin in ["ip-reputation", "asset", "verdict"] {
        site.install(plugin);
    }
    let mut validate = site.command(&["validate"]);
    validate.env("REDIS_URL", server.url()).env("DOSSIER_ADMIN_TOKEN", "0123456789abcdef");
    let output = validate.output().expect("dossier runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("is fine"), "{said}");
}

#[test]
fn the_chart_with_everything_on_is_what_kubernetes_and_operators_take() {
    let test = "the_chart_with_everything_on_is_what_kubernetes_and_operators_take";
    let Some(rendered) = render(test, EVERYTHING) else { return };
    let rendered = rendered.without_problems();
    let kinds = rendered.kinds();
    for kind in ["ScaledObject", "TriggerAuthentication", "ServiceMonitor", "PodDisruptionBudget", "Secret"] {
        assert!(kinds.contains(&kind), "no {kind} in {kinds:?}");
    }
    let scaled = &rendered.object("ScaledObject", "dossier")["spec"];
    assert_eq!(scaled["triggers"][0]["metadata"]["streamLength"], "1000000");
    assert_eq!(scaled["triggers"][0]["metadata"]["databaseIndex"], "0");
    assert_eq!(scaled["maxReplicaCount"], 1_000_000);
    let deployment = &rendered.object("Deployment", "dossier")["spec"];
    assert_eq!(deployment["replicas"], Value::Null, "KEDA decides");
    assert_eq!(deployment["template"]["spec"]["containers"][0]["image"], "dossier@sha256:0123");
    assert_eq!(rendered.object("PodDisruptionBudget", "dossier")["spec"]["maxUnavailable"], "50%");
    assert_eq!(rendered.object("Secret", "dossier")["stringData"]["REDIS_URL"], "redis://:p\"w@redis/0");
}

#[test]
fn the_chart_with_the_least_that_must_be_said_is_what_kubernetes_takes() {
    let test = "the_chart_with_the_least_that_must_be_said_is_what_kubernetes_takes";
    let Some(rendered) = render(test, &format!("{LEAST}replicas: 1000000\n")) else { return };
    let rendered = rendered.without_problems();
    assert_eq!(rendered.object("Deployment", "dossier")["spec"]["replicas"], 1_000_000);
    assert!(!rendered.kinds().contains(&"ScaledObject") && !rendered.kinds().contains(&"ServiceMonitor"));
}

/// The rules ask for this job; an operator takes it from the label that the monitor names, of the service that it selects.
#[test]
fn the_job_of_the_service_monitor_is_the_one_that_the_rules_ask_for() {
    let test = "the_job_of_the_service_monitor_is_the_one_that_the_rules_ask_for";
    let Some(rendered) = render(test, EVERYTHING) else { return };
    let label = rendered.object("ServiceMonitor", "dossier")["spec"]["jobLabel"].as_str().expect("a label");
    let job = rendered.object("Service", "dossier")["metadata"]["labels"][label].as_str().expect("the label is there");
    let rules = std::fs::read_to_string(root().join("deploy/prometheus/alerts.yml")).expect("the rules");
    assert!(rules.contains(&format!("absent(up{{job=\"{job}\"}})")), "{job}");
}

#[test]
fn values_that_cannot_work_are_refused_with_what_to_do() {
    let test = "values_that_cannot_work_are_refused_with_what_to_do";
    let no_step = "secret: { existing: dossier }\n";
    let only_said = format!("{no_step}config: \"# [[step]]\\n\"\n");
    let none = format!("{LEAST}autoscaling: {{ enabled: true, minReplicas: 0 }}\n");
    let no_token = LEAST.replace("0123456789abcdef0", "\"\"");
    for (values, why) in [
        (no_step, "config has no [[step]]"),
        (&only_said, "config has no [[step]]"),
        (&none, "autoscaling.minReplicas must be at least 1"),
        (&no_token, "secret.values.DOSSIER_ADMIN_TOKEN is empty"),
    ] {
        let Some(rendered) = render(test, values) else { return };
        assert!(rendered.0["refused"].as_str().is_some_and(|said| said.contains(why)), "{why}: {}", rendered.0);
    }
}

/// The checks above are worth something only if they fail where something is wrong.
#[test]
fn a_wrong_field_in_a_chart_is_found_wherever_it_stands() {
    let test = "a_wrong_field_in_a_chart_is_found_wherever_it_stands";
    let wrong = [
        ("deployment.yaml", "imagePullPolicy:", "imagePullPolice:", "imagePullPolice"),
        ("service.yaml", "clusterIP:", "clusterIp:", "clusterIp"),
        ("scaledobject.yaml", "pollingInterval:", "pollInterval:", "pollInterval"),
        ("scaledobject.yaml", "{{ int64 .Values.autoscaling.streamLength | quote }}", "5000", "streamLength"),
        ("scaledobject.yaml", "parameter: username", "parametre: username", "parameter"),
        ("servicemonitor.yaml", "interval:", "every:", "every"),
    ];
    for (file, right, other, named) in wrong {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let chart = folder.path().join("dossier");
        let copied = Command::new("cp").arg("-r").arg(root().join("deploy/helm/dossier")).arg(&chart).status();
        assert!(copied.is_ok_and(|status| status.success()));
        let path = chart.join("templates").join(file);
        let text = std::fs::read_to_string(&path).expect("a template");
        assert!(text.contains(right), "{file} has no {right}");
        std::fs::write(&path, text.replacen(right, other, 1)).expect("it can be written");
        let Some(rendered) = render_folder(test, &chart, EVERYTHING) else { return };
        assert!(rendered.0["problems"].to_string().contains(named), "{file}, {other}: {}", rendered.0["problems"]);
    }
}
