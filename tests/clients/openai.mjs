// The official client of OpenAI for Node.js, with AZIMUTH_URL and AZIMUTH_KEY. What it finds is printed as JSON.
import OpenAI, { APIError, AuthenticationError } from "openai";

const { AZIMUTH_URL: url, AZIMUTH_KEY: apiKey } = process.env;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey });
const input = ["a dog barks at the postman", "interest rates rise"];

const packed = await client.embeddings.create({ model: "text-embedding-3-small", input }); // base64, its default
const plain = await client.embeddings.create({ model: "text-embedding-3-small", input, encoding_format: "float" });
const few = await client.embeddings.create({ model: "text-embedding-3-small", input, dimensions: 64 });
const model = await client.models.retrieve("text-embedding-3-small");
const models = [];
for await (const one of client.models.list()) models.push(one.id);

const errorOf = async (work) => {
  try {
    await work();
  } catch (error) {
    return { api: error instanceof APIError, auth: error instanceof AuthenticationError, ...error.error };
  }
};
const unknown = await errorOf(() => client.embeddings.create({ model: "gpt-5", input }));
const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: "wrong", maxRetries: 0 });
const refused = await errorOf(() => stranger.models.list());

const vectors = (answer) => answer.data.map((one) => one.embedding);
console.log(JSON.stringify({
  packed: vectors(packed), plain: vectors(plain), few: vectors(few), model: model.id, models, unknown, refused,
}));
