// Calls tools of an MCP endpoint with the client of the TypeScript SDK: tools.mjs URL AUTHORIZATION [TOOL ARGUMENTS]...
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'

const [url, authorization, ...calls] = process.argv.slice(2)
const client = new Client({ name: 'test', version: '1.0' })
const requestInit = { headers: { authorization } }
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }))
const said = { tools: (await client.listTools()).tools.map((tool) => tool.name), results: [], progress: [] }
for (let at = 0; at < calls.length; at += 2) {
  const asked = { name: calls[at], arguments: JSON.parse(calls[at + 1]) }
  const onprogress = (one) => said.progress.push(one.progress)
  said.results.push(await client.callTool(asked, undefined, { onprogress }))
}
await client.close()
console.log(JSON.stringify(said))
