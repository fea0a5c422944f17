"""Generators: conditions to keyframes and videos. `GeneratorConfig` is the registry."""
