"""Django's handle on this room; tells data sets, models and files what reads them."""

from django.apps import AppConfig


class JobsConfig(AppConfig):
    name = "strongroom.jobs"
    label = "jobs"

    def ready(self) -> None:
        from strongroom.datasets import services as datasets
        from strongroom.files import services as files
        from strongroom.jobs import batches
        from strongroom.jobs import services as jobs
        from strongroom.registry import services as registry

        datasets.on_use(jobs.reads)
        registry.on_use(jobs.tunes)
        files.on_use(batches.reads)
