"""What crosses the wire, for programs: an AsyncAPI document and a JSON Schema of each message.

Both follow from the models in ``schemas`` and from the topology, and are written by hand nowhere. The document speaks
from the side of the worker: it *receives* requests and *sends* events; who generates a client turns that round.
"""

from consumer.asyncapi.document import Server, document
from consumer.asyncapi.schema_files import schema_files
from consumer.asyncapi.serialization import as_json, as_yaml

__all__ = ["Server", "as_json", "as_yaml", "document", "schema_files"]
