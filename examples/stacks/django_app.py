"""Django: models over the views, the admin, a system check that runs doctor.

DATABASE_URL=postgresql://.. python -m examples.stacks.django_app check
DATABASE_URL=postgresql://.. python -m examples.stacks.django_app runserver --noreload

A project of one file; in yours the models, the check and the views go into an app.
"""

import os
import sys
from typing import Any

import django
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

place = conninfo_to_dict(os.environ["DATABASE_URL"])
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": place["dbname"],
            "USER": place.get("user", ""),
            "PASSWORD": place.get("password", ""),
            "HOST": place.get("host", ""),
            "PORT": place.get("port", ""),
        }
    },
    INSTALLED_APPS=[f"django.contrib.{app}" for app in ("admin", "auth", "contenttypes", "messages", "sessions")],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    f"django.{name}"
                    for name in (
                        "template.context_processors.request",
                        "contrib.auth.context_processors.auth",
                        "contrib.messages.context_processors.messages",
                    )
                ]
            },
        }
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for this example only",
    ALLOWED_HOSTS=["*"],
    USE_TZ=True,
)
django.setup()

from django.contrib import admin  # noqa: E402
from django.core import checks, management  # noqa: E402
from django.db import connection, models, transaction  # noqa: E402
from django.http import HttpRequest, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402

from recstore import Recstore  # noqa: E402


class Product(models.Model):
    """A product of the application's own table."""

    product_id = models.IntegerField(primary_key=True)
    title = models.TextField()

    class Meta:
        app_label, managed, db_table = "shop", False, 'shop"."products'


class Popularity(models.Model):
    """A row of the view `item_vectors`, without its vectors."""

    product = models.OneToOneField(Product, models.DO_NOTHING, primary_key=True, db_column="item_id")
    users = models.IntegerField()
    views = models.FloatField()

    class Meta:
        app_label, managed, db_table = "shop", False, 'retail"."item_vectors'
        verbose_name_plural = "popularity"


@admin.register(Popularity)
class PopularityAdmin(admin.ModelAdmin):
    """The popularity of every item of the live generation, for reading."""

    list_display = ("product_id", "title", "users", "views")
    list_select_related = ("product",)
    ordering = ("-users",)
    has_add_permission = has_change_permission = has_delete_permission = lambda *_: False

    @admin.display
    def title(self, row: Popularity) -> str:
        """Return the product's title."""
        return row.product.title


@checks.register(checks.Tags.database)
def doctor(**_: Any) -> list[checks.CheckMessage]:
    """Report what `recstore doctor` finds: `check --database default`."""
    kinds = {"error": checks.Error, "warning": checks.Warning}
    return [
        kinds[finding.level](
            finding.found, "; ".join(finding.remedies) or None, obj="retail", id=f"recstore.{finding.check}"
        )
        for finding in Recstore(os.environ["DATABASE_URL"]).doctor("retail")
        if finding.level in kinds
    ]


def titled(listed: str, *parameters: Any) -> JsonResponse:
    """Return a list of recstore with the titles of the application's own table."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT r.*, p.title FROM {listed} r JOIN shop.products p ON p.product_id = r.item_id"
            " WHERE r.score IS NOT NULL ORDER BY r.score DESC LIMIT 5",
            parameters,
        )
        names = [column.name for column in cursor.description]
        return JsonResponse([dict(zip(names, row, strict=True)) for row in cursor], safe=False)


def recommend(_: HttpRequest, user: int) -> JsonResponse:
    """Recommend to a user."""
    return titled("retail.recommend(%s, 5)", user)


def search(request: HttpRequest, user: int) -> JsonResponse:
    """List what a query of the application's own models finds, in the user's order."""
    found = Product.objects.filter(title__contains=request.GET["words"]).values_list("product_id", flat=True)
    return titled("retail.rank_items(%s, %s)", user, list(found))


def basket(request: HttpRequest) -> JsonResponse:
    """Recommend for a basket, without a user."""
    return titled("retail.recommend_for_items(%s, k => 5)", [int(item) for item in request.GET.getlist("item")])


@transaction.atomic
def view(request: HttpRequest, user: int, product: int) -> JsonResponse:
    """Store a view, and recommend to the user, who may be new, in the same transaction."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO shop.views (user_id, product_id, view_count) VALUES (%s, %s, 1)", [user, product])
    return recommend(request, user)


urlpatterns = [
    path("admin/", admin.site.urls),
    path("recommend/<int:user>", recommend),
    path("search/<int:user>", search),
    path("basket", basket),
    path("view/<int:user>/<int:product>", view),
]

if __name__ == "__main__":
    management.execute_from_command_line(sys.argv)
