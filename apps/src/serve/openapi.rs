//! The description of the endpoints. In: their list. Out: an OpenAPI document, <https://spec.openapis.org/oas/v3.1.0>.

use serde_json::{Map, Value, json};

use super::routes::Route;

/// The document.
pub(super) fn document(routes: &[Route]) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let method = if route.is_post { "post" } else { "get" };
        paths.insert(route.path.into(), json!({method: operation(route)}));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Hearth", "version": env!("CARGO_PKG_VERSION"),
            "description": "Models of Hearth: what they predict, write, embed, and why.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn operation(route: &Route) -> Value {
    let content = |schema: &str| json!({"application/json": {"schema": reference(schema)}});
    let given = match route.gives {
        Some(schema) => content(schema),
        None => json!({"application/openmetrics-text": {"schema": {"type": "string"}}}),
    };
    let mut operation = json!({
        "summary": route.summary,
        "responses": {
            "200": {"description": "The answer", "content": given},
            "default": {"description": "Why there is none", "content": content("Error")},
        },
    });
    // With and without: a server need not have a token.
    operation["security"] = if route.is_open {
        json!([])
    } else {
        json!([{}, {"token": []}])
    };
    if let Some(schema) = route.reads {
        operation["requestBody"] = json!({"required": true, "content": content(schema)});
    }
    let mut parameters = Vec::new();
    if route.path.contains("{name}") {
        parameters.push(json!({
            "name": "name", "in": "path", "required": true, "schema": {"type": "string"},
        }));
    }
    if route.path.ends_with("/{name}/metrics") {
        parameters.push(json!({
            "name": "from", "in": "query", "schema": {"type": "integer", "minimum": 0, "default": 0},
        }));
    }
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    operation
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

/// An object of these properties.
fn object(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties})
}

fn list(of: &Value) -> Value {
    json!({"type": "array", "items": of})
}

/// Every schema by its name.
fn schemas() -> Value {
    let (text, number) = (json!({"type": "string"}), json!({"type": "number"}));
    let (count, flag) = (
        json!({"type": "integer", "minimum": 0}),
        json!({"type": "boolean"}),
    );
    let anything = json!({"type": "object"});
    let maybe = |kind: &str| json!({"type": [kind, "null"]});
    let input = object(
        &[],
        json!({
            "text": text, "context": text, "pair": text, "question": text, "choices": list(&text),
            "words": list(&text), "image": text,
        }),
    );
    let sampling = json!({
        "model": text, "max_tokens": count, "temperature": number, "top_p": number, "top_k": count,
        "stop": {"anyOf": [text, list(&text)]}, "seed": count, "n": {"const": 1}, "stream": flag,
        "stream_options": object(&[], json!({"include_usage": flag})),
    });
    let written = |key: &str, what: &Value| {
        let (mut properties, what) = (sampling.clone(), what.clone());
        properties[key] = what;
        object(&[key], properties)
    };
    let message = object(&["role", "content"], json!({"role": text, "content": text}));
    let usage = json!({"type": "object", "additionalProperties": count});
    let choice = |key: &str, what: Value| {
        let mut properties = json!({"index": count, "finish_reason": maybe("string")});
        properties[key] = what;
        let choices = list(&object(&["index"], properties));
        object(
            &["id", "object", "created", "model", "choices"],
            json!({"id": text, "object": text, "created": count, "model": text, "choices": choices, "usage": usage}),
        )
    };
    let model = object(
        &["id", "object", "can"],
        json!({
            "id": text, "object": text, "created": count, "owned_by": text, "task": maybe("string"), "family": text,
            "reads": maybe("string"), "classes": list(&text), "can": list(&text), "view": maybe("array"),
            "max_length": maybe("integer"), "has_threshold": flag,
        }),
    );
    let guess = object(
        &["token", "probability"],
        json!({"token": text, "probability": number}),
    );
    let mask = object(&["guesses"], json!({"guesses": list(&guess)}));
    let token = object(
        &["text", "score"],
        json!({
            "token": text, "text": text, "part": maybe("integer"), "start": maybe("integer"), "end": maybe("integer"),
            "score": number,
        }),
    );
    let embedding = object(
        &["index", "embedding"],
        json!({"object": text, "index": count, "embedding": {"anyOf": [list(&number), text]}}),
    );
    let run = object(
        &["name", "state"],
        json!({
            "name": text, "command": maybe("string"), "state": text, "epochs": maybe("number"), "metric": text,
            "best": maybe("number"),
        }),
    );
    let picture = object(&["name", "data"], json!({"name": text, "data": text}));
    let error = json!({
        "message": text, "type": text, "param": maybe("string"), "code": maybe("string"),
    });
    json!({
        "Error": object(&["error"], json!({"error": object(&["message", "type"], error)})),
        "Object": anything,
        "Health": object(&["status"], json!({"status": {"const": "ok"}})),
        "Models": object(&["data"], json!({"object": text, "data": list(&model)})),
        "Input": {"anyOf": [text, input]},
        "PredictRequest": object(&["inputs"], json!({
            "model": text, "inputs": {"anyOf": [reference("Input"), list(&reference("Input"))]},
            "top": {"type": "integer", "minimum": 1, "default": 5},
            "threshold": {"type": "number", "minimum": 0, "maximum": 1},
        })),
        "Predictions": object(&["model", "predictions"], json!({
            "model": text, "task": text, "predictions": list(&anything),
        })),
        "FillMaskRequest": object(&["text"], json!({
            "model": text, "text": text, "top": {"type": "integer", "minimum": 1, "default": 5},
        })),
        "FilledMasks": object(&["model", "masks"], json!({"model": text, "masks": list(&mask)})),
        "ExplainRequest": object(&["input"], json!({
            "model": text, "input": reference("Input"), "method": text, "class": text,
        })),
        "Explanation": object(&["model", "class", "probability", "method"], json!({
            "model": text, "class": text, "probability": number, "method": text, "completeness": maybe("number"),
            "tokens": list(&token), "picture": text,
        })),
        "EmbeddingsRequest": object(&["input"], json!({
            "model": text, "input": {"anyOf": [text, list(&text)]}, "encoding_format": {"enum": ["float", "base64"]},
        })),
        "Embeddings": object(&["data"], json!({
            "object": text, "model": text, "data": list(&embedding), "usage": usage,
        })),
        "CompletionRequest": written("prompt", &text),
        "Completion": choice("text", text.clone()),
        "ChatRequest": written("messages", &list(&message)),
        "ChatCompletion": choice("message", message.clone()),
        "Runs": object(&["data"], json!({"data": list(&run)})),
        "Records": object(&["records", "next"], json!({"records": list(&anything), "next": count})),
        "Confusion": object(&["classes", "matrix"], json!({"classes": list(&text), "matrix": list(&list(&count))})),
        "Samples": object(&["pictures", "texts"], json!({"pictures": list(&picture), "texts": list(&text)})),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::routes;

    #[test]
    fn every_schema_that_is_named_is_there() {
        let document = document(&routes::all());
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let text = document.to_string();
        let named: Vec<&str> = text.split("#/components/schemas/").skip(1).collect();
        assert!(named.len() > 20);
        for rest in named {
            let name = rest.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
        for name in schemas.keys() {
            assert!(
                text.contains(&format!("#/components/schemas/{name}\"")),
                "{name} is of no use"
            );
        }
    }
}
