"""The explorer, a small web page over `Recstore` and the SQL functions: `app` headers, login, errors; `pages` the content;
`actions` the buttons of operators; `reading` the connection of a page; `drawing` lines as SVG. The only room that knows Flask."""
