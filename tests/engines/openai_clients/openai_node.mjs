// The official client for JavaScript; answers lines as answering_lines.py describes.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import readline from "node:readline";

// Packages are looked up from the folder that is given, not from this file's.
const require = createRequire(pathToFileURL(`${process.argv[2]}/`));
const { OpenAI, toFile } = require("openai");
const asked = { model: "auto", messages: [{ role: "user", content: "Say it" }] };
const given = { model: "auto", input: "Say it" };

const calls = {
  async plain(client) {
    return (await client.chat.completions.create(asked)).choices[0].message.content;
  },
  async stream(client, take) {
    for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
      take(chunk.choices[0].delta.content ?? "");
    }
    return null;
  },
  async helper(client, take) {
    const runner = client.chat.completions.stream(asked);
    runner.on("content", (piece) => take(piece));
    return await runner.finalContent();
  },
  async transcript(client) {
    const messages = [{ role: "user", content: "first" }];
    for (const text of ["second", "third"]) {
      const completion = await client.chat.completions.create({ ...asked, messages });
      messages.push(completion.choices[0].message, { role: "user", content: text });
    }
    return (await client.chat.completions.create({ ...asked, messages })).choices[0].message.content;
  },
  async response(client) {
    return (await client.responses.create(given)).output_text;
  },
  async "response stream"(client, take) {
    for await (const event of await client.responses.create({ ...given, stream: true })) {
      if (event.type === "response.output_text.delta") {
        take(event.delta);
      }
    }
    return null;
  },
  async models(client) {
    const names = [];
    for await (const model of client.models.list()) {
      names.push(model.id);
    }
    return [names, (await client.models.retrieve(names[0])).id];
  },
  async batch(client) {
    const url = "/v1/chat/completions";
    const lines = [
      { custom_id: "good", method: "POST", url, body: asked },
      { custom_id: "bad", method: "POST", url, body: { ...asked, n: 2 } },
    ];
    const data = Buffer.from(lines.map((line) => JSON.stringify(line)).join("\n"));
    const file = await client.files.create({ file: await toFile(data, "requests.jsonl"), purpose: "batch" });
    let made = await client.batches.create({
      input_file_id: file.id, endpoint: url, completion_window: "24h", metadata: { for: "test" },
    });
    while (!["completed", "failed"].includes(made.status)) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      made = await client.batches.retrieve(made.id);
    }
    const answer = JSON.parse(await (await client.files.content(made.output_file_id)).text());
    const failure = JSON.parse(await (await client.files.content(made.error_file_id)).text());
    const counts = made.request_counts;
    return {
      answers: { [answer.custom_id]: answer.response.body.choices[0].message.content },
      failures: { [failure.custom_id]: failure.response.body.error.param },
      counts: [counts.total, counts.completed, counts.failed],
      metadata: made.metadata,
      deleted: (await client.files.delete(file.id)).deleted,
    };
  },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { call, retries } = JSON.parse(line);
  const pieces = [];
  let told;
  try {
    told = { whole: await calls[call](new OpenAI({ maxRetries: retries }), (piece) => pieces.push(piece)) };
  } catch (error) {
    told = { raised: error.constructor.name, says: String(error).slice(0, 300) };
  }
  console.log(JSON.stringify({ ...told, pieces }));
}
