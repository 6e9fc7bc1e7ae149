//! The contract's types, as the SDK's files name them.

pub mod dossier {
    pub mod plugin {
        pub mod types {
            use serde::{Deserialize, Serialize};

            use crate::host::get;

            /// The alert of this call; the host holds it.
            pub struct Alert;

            impl Alert {
                pub fn id(&self) -> String {
                    get("id", "", "").unwrap_or_default()
                }

                pub fn received(&self) -> u64 {
                    0
                }

                pub fn json(&self) -> String {
                    get("json", "", "").unwrap_or_default()
                }

                pub fn observables(&self, kind: Option<&str>) -> Vec<Observable> {
                    let list = get("observables", kind.unwrap_or_default(), "").unwrap_or_default();
                    serde_json::from_str(&list).unwrap_or_default()
                }

                pub fn get(&self, pointer: &str) -> Option<String> {
                    get("get", pointer, "")
                }

                pub fn text(&self, pointer: &str) -> Option<String> {
                    get("text", pointer, "")
                }

                pub fn enrichment(&self, step: &str, pointer: &str) -> Option<String> {
                    get("enrichment", step, pointer)
                }

                pub fn enrichment_text(&self, step: &str, pointer: &str) -> Option<String> {
                    get("enrichment-text", step, pointer)
                }

                pub fn steps(&self) -> Vec<String> {
                    Vec::new()
                }
            }

            #[derive(Debug, Clone, PartialEq)]
            pub enum Stage {
                Normalize,
                Enrich,
                Verdict,
            }

            #[derive(Debug, Clone, PartialEq, Deserialize)]
            pub struct Observable {
                #[serde(rename = "type")]
                pub kind: String,
                pub role: String,
                pub value: String,
            }

            #[derive(Debug, Clone, PartialEq, Serialize)]
            #[serde(rename_all = "lowercase")]
            pub enum Label {
                Malicious,
                Suspicious,
                Benign,
                Unknown,
            }

            #[derive(Debug, Clone, PartialEq, Serialize)]
            pub struct Verdict {
                pub label: Label,
                pub score: u8,
                pub reasons: Vec<String>,
            }

            #[derive(Debug, Clone, PartialEq)]
            pub struct Answer {
                pub fields: String,
                pub observables: Vec<Observable>,
                pub verdict: Option<Verdict>,
            }

            #[derive(Debug, Clone, PartialEq)]
            pub struct Retry {
                pub reason: String,
                pub after_ms: Option<u32>,
            }

            #[derive(Debug, Clone, PartialEq)]
            pub enum Failure {
                NotApplicable(String),
                Unavailable(Retry),
                Invalid(String),
                Internal(String),
            }
        }

        pub mod tables {
            #[derive(Debug, Clone, PartialEq)]
            pub enum TableError {
                Denied(String),
                Unavailable(String),
                Broken(String),
            }
        }

        pub mod http {
            #[derive(Debug, Clone, PartialEq)]
            pub struct Request {
                pub method: String,
                pub url: String,
                pub headers: Vec<(String, String)>,
                pub body: Option<Vec<u8>>,
                pub timeout_ms: Option<u32>,
            }

            #[derive(Debug, Clone, PartialEq)]
            pub struct Response {
                pub status: u16,
                pub headers: Vec<(String, String)>,
                pub body: Vec<u8>,
            }

            #[derive(Debug, Clone, PartialEq)]
            pub enum HttpError {
                Denied(String),
                Invalid(String),
                Timeout,
                Unreachable(String),
                TooLarge(u64),
            }
        }

        pub mod log {
            #[derive(Debug, Clone, PartialEq)]
            pub enum Level {
                Debug,
                Info,
                Warn,
                Error,
            }
        }
    }
}
