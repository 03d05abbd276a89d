// Fetches each URL, or connects to a HOST:PORT within 2.5 s; prints what came of it.
const http = require("http");
const net = require("net");

function fetched(url) {
  return new Promise((resolve) => {
    http.get(url, (response) => {
      let body = "";
      response.on("data", (piece) => (body += piece));
      response.on("end", () => resolve(`${response.statusCode} ${body.trim()}`));
    }).on("error", (error) => resolve(said(error)));
  });
}

function connected(place) {
  const colon = place.lastIndexOf(":");
  return new Promise((resolve) => {
    const socket = net.connect({ host: place.slice(0, colon), port: Number(place.slice(colon + 1)) });
    const ended = (answer) => { clearTimeout(timer); socket.destroy(); resolve(answer); };
    const timer = setTimeout(() => ended("time-out"), 2500);
    socket.on("connect", () => ended("connected")).on("error", (error) => ended(said(error)));
  });
}

const said = (error) => (error.errors || [error]).map((one) => `${one.code} ${one.syscall} ${one.message}`).join(", ");

(async () => {
  for (const argument of process.argv.slice(2))
    console.log(`node ${argument} → ${await (argument.startsWith("http") ? fetched : connected)(argument)}`);
})();
