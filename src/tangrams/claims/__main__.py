"""``python -m tangrams.claims``: measure every claim with the full preset and keep the evidence."""

from pathlib import Path

from tangrams.claims import claims, keep, measure


def main() -> None:
    """Measure, keep and print a line per claim."""
    for slug in claims():
        record, evidence = measure(slug, "full")
        if record.verdict != "skipped: data":
            keep(record, evidence, Path("evidence"))
        print(
            f"{record.number:03d} {slug}: {record.verdict}: {record.sentence} ({record.seconds:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
