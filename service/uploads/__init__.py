"""The body of a request, as it is received: multipart forms, single files, base64 in JSON."""
