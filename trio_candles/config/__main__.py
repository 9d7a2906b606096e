"""``python -m trio_candles.config > docs/config.schema.json``: the schema of config.yaml."""

import json

from trio_candles.config.load import schema

if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
