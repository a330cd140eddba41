import { render } from "preact";
import { App } from "./app.jsx";
import { Session } from "./session.js";
import "./style.css";

const session = new Session(() => render(<App session={session} />, document.getElementById("app")));
session.onChange();
void session.start();
