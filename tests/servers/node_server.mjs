// A small MCP server for Node, without the SDK: tools `echo` and `fetch`.
import { createInterface } from "node:readline";

const TOOLS = ["echo", "fetch"].map((name) => ({ name, inputSchema: { type: "object" } }));
const send = (message) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
const text = (words) => ({ content: [{ type: "text", text: words }] });

async function answer(method, params) {
  if (method === "initialize")
    return { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "node", version: "1" } };
  if (method === "tools/list") return { tools: TOOLS };
  if (method === "tools/call" && params.name === "echo") return text(params.arguments.text);
  if (method === "tools/call") return fetch(params.arguments.url).then((got) => got.text().then(text));
  throw { code: -32601, message: `Method not found: ${method}` };
}

createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  answer(method, params ?? {})
    .then((result) => send({ id, result }))
    .catch((error) => send({ id, error: { code: error.code ?? -32603, message: String(error.message) } }));
});
