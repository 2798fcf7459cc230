"""Holds answers against docs/openapi.yaml: status, media type, and the schema of JSON bodies."""

import functools
import json
import re

import jsonschema
import yaml

JSON_TYPES = ("application/json", "application/problem+json")
# What any request may be refused with, for what it is rather than for what it asks; info.description says so.
REFUSALS = (400, 401, 403, 421, 507)
REFERENCE = "#/components/schemas/"


def closed(node, schemas):
    """The document, with objects that have no other keys than the named ones: what is answered is described. Parts of
    an allOf are written out in place; together they name the keys."""
    if isinstance(node, list):
        return [closed(item, schemas) for item in node]
    if not isinstance(node, dict):
        return node
    if "allOf" in node:
        parts = [schemas[p["$ref"].removeprefix(REFERENCE)] if "$ref" in p else p for p in node["allOf"]]
        whole = {"type": "object", "properties": {}, "required": []}
        for part in parts:
            whole["properties"] |= part["properties"]
            whole["required"] += part.get("required", [])
        node = whole
    node = {key: closed(value, schemas) for key, value in node.items()}
    if node.get("type") == "object" and "properties" in node:
        node.setdefault("additionalProperties", False)
    return node


def pattern(path):
    """{path} is the one parameter that may have slashes."""
    words = re.escape(path).replace(r"\{path\}", ".+")
    return re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", words))


class Contract:
    def __init__(self, file):
        document = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self.document = closed(document, document["components"]["schemas"])
        self.resolver = jsonschema.RefResolver("", self.document)
        # What is written out goes before what has parameters.
        paths = sorted(self.document["paths"], key=lambda path: (path.count("{"), path))
        self.paths = [(pattern(path), self.document["paths"][path]) for path in paths]

    def operation(self, method, path):
        """None: the document has no such path, or not with this method."""
        for expression, item in self.paths:
            if expression.fullmatch(path):
                return item.get(method.lower())
        return None

    def follow(self, node):
        while "$ref" in node:
            node = self.resolver.resolve(node["$ref"])[1]
        return node

    def check(self, method, path, status, media, body):
        """AssertionError when an answer is not as the document says."""
        operation = self.operation(method, path.split("?")[0])
        if operation is None:
            return
        where = f"{method} {path}: {status}"
        responses = operation["responses"]
        response = responses.get(str(status), responses.get("default"))
        if response is None and status in REFUSALS:
            response = self.document["components"]["responses"]["Problem"]
        assert response is not None, f"{where} is not in docs/openapi.yaml: {body[:300]}"
        content = self.follow(response).get("content")
        media = media.split(";")[0].strip()
        if content is None or method == "HEAD" or not body:
            assert content or not body, f"{where}: docs/openapi.yaml knows no body: {body[:300]}"
            return
        if media not in content and "default" in responses:  # a function's own answer, with any status
            content = self.follow(responses["default"])["content"]
        described = content.get(media, content.get("*/*"))
        assert described is not None, f"{where}: {media or 'no media type'} is not among {list(content)}"
        if media in JSON_TYPES and media in content:
            validator = jsonschema.Draft202012Validator(described["schema"], resolver=self.resolver)
            errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(json.loads(body))]
            assert not errors, f"{where}: {errors}"


@functools.lru_cache(maxsize=None)
def of(file):
    return Contract(file)
