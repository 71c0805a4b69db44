"""A federation across processes: a party's folder and steps, the server's rounds, and a TLS transport.

`member`, `task`, `step` and `desk` know no transport; the Flower engine uses them too. `channel`, `server`
and `site` are the transport of `merveil server` and `merveil site`.
"""
