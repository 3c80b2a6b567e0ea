"""The messages on the wire, for programs: an AsyncAPI document and a JSON Schema of each message.

Both are generated from the models in ``schemas`` and from the topology. The document takes the worker's side: it
*receives* requests and *sends* events. For a client the two are swapped.
"""

from consumer.asyncapi.document import Server, document
from consumer.asyncapi.schema_files import schema_files
from consumer.asyncapi.serialization import as_json, as_yaml

__all__ = ["Server", "as_json", "as_yaml", "document", "schema_files"]
