//! `docs/openapi.json` as a judge of what is asked and answered at a control socket.
//!
//! An answer may have no field that is not described: whoever adds one describes it.

use serde_json::{Value, json};

/// A description of the API.
pub(crate) struct Api(Value);

impl Api {
    /// The description in the repository.
    pub(crate) fn of_repository() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("cannot read {path}: {e}"));
        Self::of(serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path} is not JSON: {e}")))
    }

    /// A description that has been read.
    pub(crate) fn of(mut document: Value) -> Self {
        close(&mut document["components"]["schemas"]);
        Self(document)
    }

    /// Judges the answer to `method` on `target`, a path with or without a query.
    pub(crate) fn check_answer(
        &self,
        method: &str,
        target: &str,
        status: u16,
        body: &[u8],
    ) -> Result<(), String> {
        let responses = &self.operation(method, target)?["responses"];
        let response = match &responses[status.to_string()] {
            Value::Null if (200..300).contains(&status) => {
                return Err(format!("{method} {target} is not described with status {status}"));
            }
            Value::Null => self.resolve(&responses["default"]),
            response => self.resolve(response),
        };
        match response["content"].as_object() {
            None if body.is_empty() => Ok(()),
            None => Err(format!(
                "{method} {target} is answered with nothing, status {status}"
            )),
            Some(content) => match content.get("application/json") {
                Some(json) => self.check(&json["schema"], body),
                None => String::from_utf8(body.to_vec())
                    .map(drop)
                    .map_err(|e| e.to_string()),
            },
        }
    }

    /// Judges the body of a request.
    pub(crate) fn check_request(&self, method: &str, target: &str, body: &[u8]) -> Result<(), String> {
        let asked = &self.operation(method, target)?["requestBody"];
        self.check(&asked["content"]["application/json"]["schema"], body)
    }

    fn operation(&self, method: &str, target: &str) -> Result<&Value, String> {
        let path = target.split('?').next().unwrap_or_default();
        let fits = |template: &str| {
            let same = |(t, p): (&str, &str)| t == p || (t.starts_with('{') && !p.is_empty());
            template.split('/').count() == path.split('/').count()
                && template.split('/').zip(path.split('/')).all(same)
        };
        let paths = self.0["paths"].as_object().ok_or("there are no paths")?;
        let (_, methods) = paths
            .iter()
            .find(|(template, _)| fits(template))
            .ok_or_else(|| format!("{path} is not described"))?;
        methods
            .get(method.to_lowercase())
            .ok_or_else(|| format!("{method} {path} is not described"))
    }

    /// What a reference stands for.
    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str().and_then(|r| r.strip_prefix('#')) {
            Some(pointer) => self.0.pointer(pointer).unwrap_or(&Value::Null),
            None => value,
        }
    }

    fn check(&self, schema: &Value, body: &[u8]) -> Result<(), String> {
        if schema.is_null() {
            return Err("no schema is given for it".to_owned());
        }
        let value: Value = serde_json::from_slice(body).map_err(|e| format!("not JSON: {e}"))?;
        let mut schema = schema.clone();
        schema["components"] = self.0["components"].clone();
        let validator = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(&schema)
            .map_err(|e| format!("the schema is none: {e}"))?;
        let errors: Vec<String> = validator
            .iter_errors(&value)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors.join("; "))
        }
    }
}

/// Lets no object have what its schema does not name.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let is_open = map.contains_key("properties")
                && !map.contains_key("additionalProperties")
                && !map.contains_key("unevaluatedProperties");
            map.values_mut().for_each(close);
            if is_open {
                map.insert("unevaluatedProperties".to_owned(), json!(false));
            }
        }
        Value::Array(list) => list.iter_mut().for_each(close),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
