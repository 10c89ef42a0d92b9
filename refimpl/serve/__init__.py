"""The tasks over HTTP: the routes and bodies of the servers that users have, with in-process bits.

`modernbert serve` starts it; uvicorn, httptools and prometheus_client are the extra `serve`.
Imports: reference, text, files, backends, models, tasks.
"""
