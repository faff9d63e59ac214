// One call of one client, as its users make it: node client.mjs CLIENT URL. Prints what came of it as JSON.
import { createOpenAI } from "@ai-sdk/openai";
import Anthropic from "@anthropic-ai/sdk";
import { GoogleGenAI } from "@google/genai";
import { generateText } from "ai";
import OpenAI from "openai";

const [client, url] = process.argv.slice(2);
const messages = [{ role: "user", content: "hi" }];
const chat = { model: "gpt-4o-mini", messages, max_completion_tokens: 50 };
const message = { model: "claude-haiku-4-5", messages, max_tokens: 50 };

const openai = () => new OpenAI({ baseURL: `${url}/v1`, apiKey: "fake" });
const anthropic = () => new Anthropic({ baseURL: url, apiKey: "fake" });
const google = () => new GoogleGenAI({ apiKey: "fake", httpOptions: { baseUrl: url } });
const content = { model: "gemini-2.5-flash-lite", contents: "hi", config: { maxOutputTokens: 50 } };

const calls = {
  openai: async () => (await openai().chat.completions.create(chat)).choices[0].message.content,
  "openai-stream": async () => {
    let text = "";
    for await (const chunk of await openai().chat.completions.create({ ...chat, stream: true })) {
      text += chunk.choices[0].delta.content ?? "";
    }
    return text;
  },
  "openai-responses": async () =>
    (await openai().responses.create({ model: "gpt-4o-mini", input: "hi", max_output_tokens: 50 })).output_text,
  anthropic: async () => (await anthropic().messages.create(message)).content[0].text,
  "anthropic-stream": async () => await anthropic().messages.stream(message).finalText(),
  google: async () => (await google().models.generateContent(content)).text,
  "google-stream": async () => {
    let text = "";
    for await (const chunk of await google().models.generateContentStream(content)) {
      text += chunk.text ?? "";
    }
    return text;
  },
  ai: async () => {
    const model = createOpenAI({ baseURL: `${url}/v1`, apiKey: "fake" }).chat("gpt-4o-mini");
    return (await generateText({ model, prompt: "hi", maxOutputTokens: 50 })).text;
  },
};

try {
  console.log(JSON.stringify({ text: await calls[client]() }));
} catch (error) {
  const last = error.lastError ?? error;
  console.log(JSON.stringify({ status: last.status ?? last.statusCode, message: last.message }));
}
