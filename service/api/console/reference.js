// The page at /docs: Swagger UI over the service's OpenAPI document. It asks nobody else, so it has no online validator.

SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, showExtensions: true, validatorUrl: null });
