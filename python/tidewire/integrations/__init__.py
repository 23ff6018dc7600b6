"""Middleware and hooks that make publishers of servers that know nothing of Tidewire.

- :mod:`tidewire.integrations.wsgi` and :mod:`tidewire.integrations.asgi`: around an application with an API like that of S3 or WebDAV;
- :mod:`tidewire.integrations.swift`: a filter in the pipeline of OpenStack Swift's proxy;
- :mod:`tidewire.integrations.moto`: for the S3 of moto, which tests of boto3 programs use.

All reserve space for the event before the operation, and commit after it: what fails is not told, and what cannot be told is
refused with 503 before it is done.
"""
