"""The reference of what travels over MQTT. In: `schemas`. Out: AsyncAPI, JSON Schemas and a page under docs."""
